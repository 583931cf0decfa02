"""A store as real training would have left it, written by the real writer, with numbers from a script instead of a model.

`seed_store` makes one run of every state; the texts of the run "hostile" are attacks on a page.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from grpo_core.config import RunConfig, make_config
from grpo_core.diagnosis.integrity import recomputed
from grpo_core.launch.folder import RunFolder
from grpo_core.launch.process import ProcessId, myself, this_machine
from grpo_core.launch.status import Word, write_word
from grpo_core.methods import METHODS
from grpo_core.records import Completion, EvalTrace, Group, GroupTrace, Prompt, Reward, RolloutTrace, ScoredGroup, StepTrace, Timings, UpdateTrace
from grpo_core.trace.tables import to_tables
from storage import compaction
from storage.catalog import Catalog
from storage.segments import RunWriter

PIECES = ["<pad>", "<eos>", "<unk>", *"+,0123456789:="]
TOKEN = {piece: token for token, piece in enumerate(PIECES)}
STARTED = time.time() - 300.0
FRESH_S = 3600.0
"""The heartbeat of a live run lies so far ahead, so that it does not fall silent while slow tests run."""
DEAD = ProcessId(pid=2**22 - 1, started=1)

PAYLOADS = (
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 1'>",
    "<svg onload='window.pwned = 1'></svg>",
    "<iframe srcdoc='<script>parent.pwned = 1</script>'></iframe>",
    "![x](http://evil.example/markdown.png)",
    "[click](javascript:window.pwned=1)",
    "<style>@import url(http://evil.example/style.css); * { display: none }</style>",
    "<form action='http://evil.example/'><input name=q autofocus onfocus='window.pwned=1'></form>",
    "</script><script>window.pwned = 1</script>",
    "<a href='javascript:window.pwned=1' style='position:fixed;inset:0'>cover</a>",
    "`code` **bold** :material/warning: :red[red] $x^2$ | a | b |",
    "\u202eright to left\u202c \u200bzero\u200bwidth \x1b[31mansi\x07",
    '" onmouseover="window.pwned=1" x="',
    "${window.pwned=1} {{constructor.constructor('window.pwned=1')()}}",
)


def seed_store(root: Path, *, steps: int = 40) -> dict[str, str]:
    """One run of every state: {name: run id}. `steps` is the length of the finished run."""
    runs = {
        "healthy": make_run(root, {"name": "healthy", "steps": steps}, recorded=steps, state="finished", gap_at=steps // 2),
        "collapsing": make_run(root, {"name": "collapsing", "steps": steps, "epochs": 4, "lr": 6e-4}, recorded=steps * 2 // 3, state="running", sinking=True),
        "stopped": make_run(root, {"name": "one update", "method": "dr_grpo", "steps": steps, "epochs": 1}, recorded=5, state="stopped", rescored=False),
        "failed": make_run(root, {"name": "broken reward", "steps": 30}, recorded=3, state="failed", message="the reward my_rewards:judge cannot be imported"),
        "lost": make_run(root, {"name": "power cut", "steps": 30}, recorded=4, state="lost"),
        "starting": make_run(root, {"name": "warming up", "method": "dapo", "steps": 30}, recorded=0, state="starting"),
        "hostile": make_run(root, {"name": PAYLOADS[0], "steps": 4, "group_size": len(PAYLOADS)}, recorded=2, state="finished", payloads=True),
    }
    catalog = Catalog(root)
    catalog.set_tags(runs["healthy"], ["baseline", "demo"])
    catalog.set_note(runs["healthy"], "The one to compare with.")
    catalog.rename(runs["hostile"], PAYLOADS[1])
    catalog.set_tags(runs["hostile"], [PAYLOADS[4][:60], PAYLOADS[0]])
    catalog.set_note(runs["hostile"], " ".join(PAYLOADS))
    return runs


def hasten_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merged files hold 8 steps and count at once."""
    monkeypatch.setattr(compaction, "SINCE_DELAY_S", 0.01)
    monkeypatch.setattr(compaction, "GRACE_S", 0.01)
    for place in ("storage.compaction.BLOCK", "storage.retention.BLOCK"):
        monkeypatch.setattr(place, 8)


def make_merged_run(root: Path, settings: dict, *, recorded: int) -> str:
    """An ended run in files of as many steps as `hasten_merges` says and one each."""
    run_id = make_run(root, settings, recorded=recorded, state="finished", sinking=True)
    with RunWriter.open(root / "runs" / run_id) as writer:
        writer.compact()
    time.sleep(0.05)
    return run_id


def make_run(
    root: Path,
    settings: dict,
    *,
    recorded: int,
    state: str,
    message: str = "",
    sinking: bool = False,
    rescored: bool = True,
    gap_at: int | None = None,
    payloads: bool = False,
    prompts: int = 6,
    tokens: int | None = None,
    remembered: dict[str, float] | None = None,
) -> str:
    """A run with `recorded` steps. `gap_at` loses two steps, `sinking` lets correct rollouts lose likelihood, `tokens` sets the length,
    `remembered` is known of every prompt."""
    config = make_config({"prompts_per_step": prompts, **settings})
    folder = RunFolder.create(root, config)
    Catalog(root).register(folder.run_id, config.title)
    with RunWriter.open(folder.path) as writer:
        writer.write_vocabulary([*PIECES, *PAYLOADS])
        missing = 0
        for step in range(recorded):
            if gap_at is not None and step in (gap_at, gap_at + 1):
                missing += 1
                continue
            made = make_step(step, config, sinking=sinking, rescored=rescored, payloads=payloads, tokens=tokens)
            made = replace(made, groups=tuple(replace(group, prompt_state=remembered or {}) for group in made.groups))
            writer.append_step(to_tables(made, missing_before=missing))
            missing = 0
    say(folder, config, recorded, state, message)
    return folder.run_id


def say(folder: RunFolder, config: RunConfig, step: int, state: str, message: str = "") -> None:
    """Write the run's last word as its process would have; a live one is this very process."""
    alive = state in ("starting", "running")
    word = Word(
        state="running" if state == "lost" else state,
        phase="warming up the tiny model" if state == "starting" else "training",
        phase_done=120 if state == "starting" else step,
        phase_total=250 if state == "starting" else config.steps,
        step=step,
        steps=config.steps,
        started_at=STARTED,
        updated_at=time.time() + (FRESH_S if alive else 0),
        ended_at=None if alive or state == "lost" else STARTED + 245.0,
        seconds_per_step=0.9,
        exit_code={"finished": 0, "stopped": 0, "failed": 1}.get(state),
        message=message,
        process=myself() if alive else DEAD,
        machine=this_machine(),
    )
    write_word(folder, word)
    folder.log.write_text("".join(f"step {n} done\n" for n in range(step)) + (f"error: {message} {PAYLOADS[0]}\n" if state in ("failed", "lost") else ""))


def make_step(step: int, config: RunConfig, *, sinking: bool = False, rescored: bool = True, payloads: bool = False, tokens: int | None = None) -> StepTrace:
    """One step of a run that learns, or sinks: the same for the same arguments."""
    rng = np.random.default_rng([config.seed, step])
    progress = step / config.steps
    skill = 1 / (1 + np.exp(2.5 - 4.5 * progress))
    if sinking:
        skill *= np.clip(1.6 - 1.5 * progress, 0.05, 1)
    scene = Scene(rng=rng, skill=float(skill), progress=progress, sinking=sinking, rescored=rescored, payloads=payloads, tokens=tokens)
    evaluation = EvalTrace(prompts=64, correct=float(np.clip(skill + rng.normal(0, 0.02), 0, 1)), reward=scene.skill, gold_logp=-3 * (1 - progress))
    return StepTrace(
        step=step,
        attempt=0,
        finished_at=STARTED + 0.9 * (step + 1),
        elapsed_s=0.9 * (step + 1),
        timings=Timings(generate_s=0.3, score_s=0.01, update_s=0.5, rescore_s=0.09, evaluate_s=0.0, total_s=0.9 + 0.1 * rng.random()),
        groups=tuple(_group(scene, config) for _ in range(config.prompts_per_step)),
        updates=tuple(_update(scene, n, config) for n in range(config.updates_per_rollout)),
        evaluation=evaluation if step % 10 == 0 else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What one step plays: how able the policy is (0 to 1), how far the run is (0 to 1), and what is to go wrong."""

    rng: np.random.Generator
    skill: float
    progress: float
    sinking: bool
    rescored: bool
    payloads: bool
    tokens: int | None


def _update(scene: Scene, n: int, config: RunConfig) -> UpdateTrace:
    rng, clips = scene.rng, config.updates_per_rollout > 1
    return UpdateTrace(
        update=n,
        epoch=n,
        minibatch=0,
        loss=float(rng.normal(0, 0.02)),
        terms={"policy": 0.0},
        grad_norm=float(np.exp(rng.normal(-0.6 + (1.8 * scene.progress if scene.sinking else 0), 0.25))),
        clip_low=abs(rng.normal(0, 0.004)) if clips else None,
        clip_high=abs(rng.normal(0, 0.008)) if clips else None,
        kl_before=1e-3 * n,
        kl_ref=None,
        ratio_max=1.2 + 0.3 * n,
        entropy=0.6 - 0.5 * scene.progress,
        tokens=600,
        lr=config.lr,
    )


def _group(scene: Scene, config: RunConfig) -> GroupTrace:
    size = config.group_size
    a, b = scene.rng.integers(0, 100, 2).tolist()
    wins = scene.rng.random(size) < np.clip(scene.skill + scene.rng.normal(0, 0.3), 0, 1)
    completions = [_completion(scene, a, b, bool(win), PAYLOADS[n] if scene.payloads else None) for n, win in enumerate(wins)]
    rewards = tuple(_reward(bool(win), PAYLOADS[-1] if scene.payloads and n == 1 else None) for n, win in enumerate(wins))
    totals = np.array([reward.total for reward in rewards])
    advantages = recomputed(totals, np.zeros(size, "i8"), METHODS[config.method].credit[0])  # as its method makes them, or the diagnosis would object
    prompt = Prompt(
        prompt_id=f"{a}+{b}",
        text=" ".join(PAYLOADS) if scene.payloads else f"{a}+{b}=",
        token_ids=tuple(TOKEN[letter] for letter in f"{a}+{b}="),
        answer=PAYLOADS[0] if scene.payloads else str(a + b),
    )
    outcome = ScoredGroup(group=Group(prompt=prompt, completions=tuple(completions)), rewards=rewards).outcome
    return GroupTrace(
        prompt=prompt,
        rollouts=tuple(_trace(scene, *parts) for parts in zip(completions, rewards, advantages, strict=True)),
        outcome=outcome,
        baseline=float(np.nanmean(totals)),
        kept=outcome != "failed",
        reason="fewer than two rollouts could be scored" if outcome == "failed" else "",
    )


def _completion(scene: Scene, a: int, b: int, win: bool, payload: str | None) -> Completion:
    rng = scene.rng
    units = a % 10 + b % 10
    tens = a // 10 + b // 10 + units // 10
    text = f"{a % 10}+{b % 10}={units},{a // 10}+{b // 10}+{units // 10}={tens}:{a + b + (0 if win else int(rng.integers(1, 12)))}"
    if scene.tokens:
        text = (text * (scene.tokens // len(text) + 1))[: scene.tokens - 1]
    ids = [TOKEN[letter] for letter in text]
    if payload is not None:
        text, ids = payload, [len(PIECES) + PAYLOADS.index(payload)]
    ids.append(TOKEN["<eos>"])
    entropy = np.abs(rng.gamma(0.8, 0.5 * (1.15 - scene.skill), len(ids))).astype("f4")
    logp = -np.abs(rng.gamma(0.6, (0.6 if win else 0.9) * (1.15 - scene.skill), len(ids))).astype("f4")
    return Completion(token_ids=np.array(ids, "i4"), text=text, logp_sampling=logp, logp=logp, entropy=entropy, finish="stop")


def _reward(win: bool, failure: str | None) -> Reward:
    if failure:
        return Reward(parts={"exact": float("nan")}, total=float("nan"), correct=None, failure=failure)
    return Reward(parts={"exact": float(win), "format": 1.0}, total=float(win), correct=win)


def _trace(scene: Scene, completion: Completion, reward: Reward, advantage: float) -> RolloutTrace:
    length, rng = len(completion.token_ids), scene.rng
    push = 0.05 * advantage - (0.12 * scene.progress if scene.sinking else 0)
    far = np.abs(rng.normal(0, 0.1, length)) > 0.2
    return RolloutTrace(
        completion=completion,
        reward=reward,
        advantages=np.full(length, advantage, "f4"),
        weights=np.full(length, 14 / length, "f4"),
        clipped=np.sign(np.where(far, advantage, 0)).astype("i1"),
        logp_delta=rng.normal(push, 0.05, length).astype("f4") if scene.rescored else None,
    )
