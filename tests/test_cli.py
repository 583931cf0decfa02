from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from grpo_core.beside import PROJECT_ROOT
from grpo_core.cli import BENCHMARKS, cli, main
from grpo_core.commands.options import settle
from grpo_core.config import RunConfig, make_config
from grpo_core.errors import ConfigError
from grpo_core.launch.start import command_line, create_run
from grpo_core.methods import METHODS
from grpo_core.presets import PRESETS, preset


def parsed(arguments: list[str]) -> RunConfig:
    """The config that `train` would run with these arguments."""
    given = cli.commands["train"].make_context("train", list(arguments)).params
    return make_config(settle(given["preset_name"], given["config_file"], {name: given[name] for name in RunConfig.model_fields}))


def test_help_explains_every_option_with_unit_and_default(capsys) -> None:
    assert main(["train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    words = text.replace(" ", "")
    for name, field in RunConfig.model_fields.items():
        assert f"--{name.replace('_', '-')} " in text
        assert "".join(field.description.split(";")[0].split()) in words  # lines end at hyphens too
        if unit := field.json_schema_extra["unit"]:
            assert f"[{unit}; " in text
    assert "--lr NUMBER" in text and "default: 0.0002]" in text
    assert "--run" not in text.replace("--run-", "")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lr": 6e-4, "epochs": 4, "seed": 7, "name": "two words; rm -rf $HOME `x` \"'"},
        {"method": "dapo", "clip_low": 0.0, "clip_high": 0.3, "kl_coef": 1e-8},
        {"task": "dataset", "data": "a b.jsonl", "rewards": ["exact=0.5", "my.module:score"], "stop": ["-x", "--stop", "\n", "="], "max_new_tokens": 99},
        {"name": "-starts-with-a-dash", "record": "off", "top_p": 0.1 + 0.2, "steps": 10_000_000},
        *({**p.settings} for p in PRESETS.values()),
    ],
)
def test_the_command_line_of_a_config_gives_that_config_again(changes: dict) -> None:
    config = make_config(changes)
    command = command_line(config)
    assert command[:4] == ["python", "-m", "grpo_core", "train"]
    assert parsed(command[4:]) == config


READ_BESIDE = {
    "vas_": {"prompt_sampler": "vas"},
    "filter_": {"prompt_sampler": "solvable"},
    "replay_": {"replay_size": 8},
    "mark_pattern": {"group_reward": "otc"},
    "group_reward_weight": {"group_reward": "e_grpo"},
    "group_reward": {"mark_pattern": "="},
    "grao_": {"gold_column": "g"},
    "hint_": {"gold_column": "g"},
    "preference_groups": {"preferences": "p.jsonl"},
    "retention_every": {"retention": "every"},
    "retention_budget": {"retention": "budget"},
    "retention_recent": {"retention": "flagged"},
}
"""What options are refused without, by how their names begin."""


def test_every_option_can_be_said_as_a_flag_and_in_a_file(tmp_path: Path) -> None:
    """A value other than the default for each, where one exists that fits the others."""
    others = {int: 3, float: 0.3, float | None: 0.3}
    for name, field in RunConfig.model_fields.items():
        choices = getattr(field.annotation, "__args__", ())
        readers = [m.name for m in METHODS.values() if name in m.knobs]
        value = others.get(field.annotation) or next((c for c in choices if isinstance(c, str) and c != field.default), "x")
        base = {
            "method": readers[-1] if readers else "grpo_llds",
            "prompts_per_step": 9,
            **({} if name == "paraphrases" else {"task": "dataset", "data": "d.jsonl"}),
        }
        base |= next((beside for start, beside in READ_BESIDE.items() if name.startswith(start)), {})
        if asked := METHODS[base["method"]].asks:
            base = {key: value for key, value in base.items() if key != "data"} | asked
        base.pop(name, None)
        own = {"method": "grpo_llds", "rewards": "numeric", "stop": "x", "webhook": "https://example.org/hook?key=1", "clip_cap": 4.0}
        value = own.get(name, value)
        if name == "task":
            value, base = "dataset", {"data": "d.jsonl"}
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({**base, name: [value] if name in ("rewards", "stop") else value}))
        flags = [part for key, text in base.items() for part in (f"--{key.replace('_', '-')}", str(text))]
        from_flags = parsed([*flags, f"--{name.replace('_', '-')}", str(value)])
        assert from_flags == parsed(["--config", str(file)])
        assert getattr(from_flags, name) != field.default


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("lr: 5e-4\nepochs: 3\n")
    config = parsed(["--preset", "collapse", "--config", str(file), "--epochs", "5"])
    assert (config.steps, config.lr, config.epochs, config.name) == (preset("collapse").settings["steps"], 5e-4, 5, "collapse")
    assert parsed(["--preset", "llds", "--llds-coef", ""]).llds_coef is None


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_configs(name: str) -> None:
    config = make_config(dict(PRESETS[name].settings))
    assert config.name == name and config.updates_per_rollout >= 2


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            ["train", "--method", "grop"],
            2,
            f"error: method: unknown method 'grop'; known: {', '.join(METHODS)}; did you mean grpo?",
        ),
        (["train", "--group-size", "1"], 2, "error: group_size=1 leaves no other rollout to compare with"),
        (["train", "--task", "chess"], 2, "error: task: input should be 'arithmetic', 'ranking' or 'dataset', got 'chess'"),
        (["train", "--steps", "many"], 2, "error: steps: input should be a valid integer"),
        (["train", "--lr", "nan"], 2, "error: lr: "),
        (["train", "--preset", "sick"], 2, "error: unknown preset 'sick'; known: healthy, collapse, llds"),
        (["train", "--config", "nowhere.json"], 2, "error: cannot read config nowhere.json: No such file or directory"),
        (["train", "--lrr", "1"], 2, "error: No such option '--lrr'"),
        (
            ["train", "--webhook", "ftp://example.org"],
            2,
            "error: webhook: webhook='ftp://example.org' is no http or https address; try https://example.org/hook",
        ),
        (["train", "--webhook", "https://"], 2, "error: webhook: webhook='https://' is no http"),
        (["train", "--on-collapse", "panic"], 2, "error: on_collapse: input should be 'alert', 'stop' or 'checkpoint_and_stop', got 'panic'"),
        (["diagnose", "nobody"], 1, "error: no run 'nobody' in "),
        (["fork", "nobody"], 1, "error: no run 'nobody' in "),
        (["fork", "nobody", "--step", "-1"], 2, "error: Invalid value for '--step'"),
        (["launch", "--method", "grop"], 2, "error: method: unknown method 'grop'"),
        (["fly"], 2, "error: No such command 'fly'"),
        (["show", "nobody"], 1, "error: no run 'nobody' in "),
        (["stop", "../../etc"], 1, "error: no run '../../etc' in "),
        (["resume", "nobody"], 1, "error: no run 'nobody' in "),
        (["export", "nobody"], 2, "error: say where to: --to FOLDER, or --to-ducklake CATALOGUE"),
        (["retain", "nobody"], 2, "error: Missing option '--keep'"),
        (["retain", "nobody", "--keep", "flagged"], 1, "error: no run 'nobody' in "),
        (["retain", "nobody", "--keep", "every"], 2, "error: keep every 0 steps thins nothing; every needs 2 or more, e.g. 10"),
        (["retain", "nobody", "--keep", "budget"], 2, "error: a budget of 0 bytes keeps nothing; give a size, e.g. 2GB"),
        (["retain", "nobody", "--keep", "budget", "--budget", "3 cups"], 2, "error: '3 cups' is no size; write a number and a unit, e.g. 500MB, 2GB or 1.5GiB"),
        (["retain", "nobody", "--keep", "flagged", "--every", "3"], 2, "error: every=3 is read only by the policy every"),
        (["train", "--retention", "some"], 2, "error: retention: input should be 'all', 'every', 'flagged' or 'budget', got 'some'"),
        (["train", "--retention", "budget"], 2, "error: retention=budget needs a budget above 0; try retention_budget=2"),
        (["train", "--retention-every", "5"], 2, "error: retention_every is read only with retention=every; leave it at 10 or set retention=every"),
        (["bench", "tea"], 2, "error: Invalid value for '{train|prefix|recorder|store|diagnosis|remedies|llds|soak|kills}': 'tea' is not one of"),
        (["bench", "llds", "--tea", "1"], 2, "error: bench llds has no option --tea; it has --seeds, --jobs, --store"),
        (["bench", "recorder", "--steps"], 2, "error: benchmark options come in pairs like --steps 40, got: --steps"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(arguments: list[str], code: int, sentence: str, store_root: Path, capsys) -> None:
    assert main(arguments) == code
    printed = capsys.readouterr()
    assert printed.err.startswith(sentence), printed.err
    assert printed.err.count("\n") == 1 and printed.out == ""
    assert not list(store_root.glob("runs/*"))


def test_every_benchmark_that_is_written_about_is_there() -> None:
    for name in BENCHMARKS:
        assert callable(importlib.import_module(f"tests.benchmarks.{name}").main)
    sources = [path for pattern in ("README.md", "docs/*.md", "tests/benchmarks/*.py") for path in PROJECT_ROOT.glob(pattern)]
    texts = "".join(path.read_text(encoding="utf-8") for path in sources)
    written = set(re.findall(r"grpo_core bench ([a-z_]+)", texts)) | set(re.findall(r"`bench ([a-z_]+)", texts))
    assert written and written <= set(BENCHMARKS)


def test_the_command_line_starts_without_what_only_some_commands_need() -> None:
    script = "import sys, grpo_core.cli; print(*sorted({'torch', 'pandas', 'sqlalchemy', 'duckdb', 'numpy'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_without_a_command_there_is_help(capsys) -> None:
    assert main([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_an_empty_store_says_how_to_begin_and_is_not_made_by_looking(tmp_path: Path, capsys) -> None:
    assert main(["runs", "--store", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out == f"no runs in {tmp_path / 'none'}; start one with `python -m grpo_core train --preset healthy`\n"
    assert main(["runs", "--store", str(tmp_path / "none"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert not (tmp_path / "none").exists()


def test_methods_lists_every_row(capsys) -> None:
    assert main(["methods", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(METHODS)
    assert rows[-1]["knobs"] == sorted(METHODS[rows[-1]["name"]].knobs)
    assert [row["preset"] for row in rows] == [m.preset for m in METHODS.values()] and "gspo-2507.18071" in [row["preset"] for row in rows]
    assert main(["methods"]) == 0
    text = capsys.readouterr().out
    assert all(m.name in text and m.paper in text and m.preset in text and m.summary in text for m in METHODS.values())


def test_a_method_goes_by_its_name_or_its_preset_id(tmp_path: Path) -> None:
    assert parsed(["--method", "gspo-2507.18071"]) == parsed(["--method", "gspo"])
    assert all(make_config({"method": m.preset} | m.asks).method == m.name for m in METHODS.values())
    with pytest.raises(ConfigError, match="unknown method 'gspo-2507.18072'; known: .*; did you mean gspo-2507.18071?"):
        make_config({"method": "gspo-2507.18072"})


def test_a_run_is_found_by_id_beginning_or_name(store_root: Path, capsys) -> None:
    first = create_run(store_root, make_config({"name": "one"}))
    second = create_run(store_root, make_config({"name": "two"}))
    for text in (first.run_id, "one"):
        assert main(["show", text, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["run_id"] == first.run_id
    shortest = next(first.run_id[:n] for n in range(1, 100) if not second.run_id.startswith(first.run_id[:n]))
    assert main(["show", shortest, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run_id"] == first.run_id
    assert main(["show", shortest[:-1]]) == 1
    assert f"could be 2 runs ({max(first.run_id, second.run_id)}, " in capsys.readouterr().err


def test_a_damaged_config_spoils_only_its_own_row(store_root: Path, capsys) -> None:
    _, bad = (create_run(store_root, make_config({"name": name})) for name in ("good", "bad"))
    bad.config.write_text("{")
    assert main(["runs", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["good"]["method"] == "grpo" and rows["bad"]["method"] is None
    assert main(["show", "bad"]) == 2
    assert "config.json" in capsys.readouterr().err


def test_looking_at_runs_loads_no_torch(store_root: Path) -> None:
    create_run(store_root, make_config({}))
    probe = "import sys; from grpo_core.cli import main; main(['runs']); main(['train', '--help']); sys.exit('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
