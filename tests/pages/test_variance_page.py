import numpy as np
import pandas as pd
import pytest

from grpo_core.config import make_config
from pages.components.prompts_view import columns, listed_prompts, sampler_sentence, with_scores
from pages.components.variance_view import step_figures
from tests.pages.looking import rows_of, words_of
from tests.pages.seeded import PAYLOADS, make_run
from tests.pages.test_conflicts_page import cells, of_key


def test_signal_first_then_why(seeded, open_page) -> None:
    root, runs = seeded
    said = words_of(open_page(root, "variance", run=runs["healthy"]))
    assert "**Over the last 10 steps," in said and "carried no signal" in said and "(starvation)" in said and "(mastery)" in said
    assert "every prompt equally hard" in said and "Variance-aware sampling would draw 3 of 6 prompts of a step" in said


def test_prompts_by_chance_and_one_of_them(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "variance", run=runs["healthy"])
    table = rows_of(app, "variance.prompts")
    titles = [column["title"] for column in table["columns"]]
    lift = [row["cells"][titles.index("× uniform")]["sort"] for row in table["rows"]]
    assert lift == sorted(lift, reverse=True) and all(column["means"] for column in table["columns"])
    assert "Recorded" not in titles and table["rows"][0]["chosen"]
    assert of_key(app, "plot.variance.map") and of_key(app, "variance.groups")
    said = words_of(app)
    assert "Seen 1 time" in said and "Pairwise distance of its latest group: **0." in said
    assert app.code[0].value == cells(table)[0][0]


def test_a_prompt_opens_from_its_address_with_links_to_its_groups(seeded, open_page) -> None:
    root, runs = seeded
    first = rows_of(open_page(root, "variance", run=runs["healthy"], list="all"), "variance.prompts")["rows"][3]
    app = open_page(root, "variance", run=runs["healthy"], list="all", prompt=first["id"])
    assert app.code[0].value == first["cells"][0]["text"]
    group = rows_of(app, "variance.groups")["rows"][0]
    step, index = group["id"].split()
    assert group["href"] == f"group?run={runs['healthy']}&step={step}&group={index}"


def test_prompts_without_signal(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "variance", run=runs["healthy"], list="silent")
    table = rows_of(app, "variance.prompts")
    assert {row["cells"][1]["chip"]["text"] for row in table["rows"]} <= {"starved", "mastered", "tied", "both ways"}
    assert "always all wrong" in words_of(app)


def test_hostile_prompts_stay_text(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "variance", run=runs["hostile"])
    assert app.code[0].value == " ".join(PAYLOADS) and "Recorded" not in words_of(app)
    assert rows_of(app, "variance.prompts")["rows"][0]["cells"][0]["text"] == " ".join(PAYLOADS)


def test_what_does_not_exist_is_a_sentence(seeded, open_page) -> None:
    root, runs = seeded
    assert "This run has not seen the prompt nobody" in words_of(open_page(root, "variance", run=runs["healthy"], prompt="nobody"))
    assert "No group recorded yet" in words_of(open_page(root, "variance", run=runs["starting"]))


def test_a_live_run_refreshes(seeded, open_page) -> None:
    root, runs = seeded
    assert of_key(open_page(root, "variance", run=runs["collapsing"]), "tick.variance.body")


def test_figures_of_a_step_by_hand() -> None:
    """Step 0: groups 0/2, 2/2, 1/2: p = ½, so 2·½² = ½ expected and ⅔ observed; pass@2 = (0 + 1 + 1)/3. Step 4: one group of a single scored rollout."""
    counts = pd.DataFrame(
        {"step": [0, 0, 0, 4], "outcome": ["all_fail", "all_pass", "mixed", "failed"], "correct": [0, 2, 1, 1], "scored": [2, 2, 2, 1], "groups": 1}
    )
    figures = step_figures(counts, 2).set_index("step")
    first = figures.loc[0]
    assert first[["outcome_mixed", "outcome_all_fail", "outcome_all_pass", "outcome_tied"]].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert first[["uniform_observed", "uniform_expected", "pass_at_1", "pass_at_size"]].tolist() == pytest.approx([2 / 3, 0.5, 0.5, 2 / 3])
    last = figures.loc[4]
    assert np.isnan(last["uniform_observed"]) and np.isnan(last["uniform_expected"]) and last["outcome_failed"] == 1 and last["pass_at_1"] == 1


def prompts() -> pd.DataFrame:
    """4 of 8 correct with diversity ½; 8 of 8 without diversity; nothing scored."""
    rows = [("half", 4, 8, 1, 0, 0, 0.5), ("done", 8, 8, 0, 0, 0, np.nan), ("unknown", 0, 0, 0, 0, 1, np.nan)]
    found = pd.DataFrame(rows, columns=["prompt_hash", "correct", "scored", "mixed", "all_fail", "failed", "diversity"])
    return found.assign(all_pass=[0, 1, 0], tied=0, seen=1, last_step=[3, 2, 1])


def test_scores_and_chances_by_hand() -> None:
    """VPS of half = 0.8·¼ + 0.2·½ = 0.3, all there is; so it gets ½ + ½·⅓ = ⅔ of the draws, the others ⅙ each."""
    scored = with_scores(prompts(), alpha=0.8, beta=0.2, batch=8, weighted=0.5).set_index("prompt_hash")
    assert scored.loc["half", ["vps", "probability", "lift", "unbiased"]].tolist() == pytest.approx([0.3, 2 / 3, 2, 2 / 7])
    assert scored.loc["done", ["vps", "probability"]].tolist() == pytest.approx([0, 1 / 6]) and np.isnan(scored.loc["unknown", "vps"])
    assert scored["silent"].tolist() == [False, True, False]
    assert [chip["text"] for chip in scored["signal"]] == ["signal", "mastered", "not scored"]


def test_lists() -> None:
    scored = with_scores(prompts(), alpha=0.8, beta=0.2, batch=8, weighted=0.5)
    assert listed_prompts(scored, "next")["prompt_hash"].tolist() == ["half", "done", "unknown"]
    assert listed_prompts(scored, "silent")["prompt_hash"].tolist() == ["done"]


def test_what_the_runs_own_sampler_recorded_has_a_column() -> None:
    run = type("Run", (), {"config": make_config({})})
    unknown = prompts().assign(sampler_probability=np.nan)
    assert "Recorded" not in [column.title for column in columns(run, unknown)]
    assert "Recorded" in [column.title for column in columns(run, unknown.assign(sampler_probability=[0.2, np.nan, np.nan]))]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "draws uniformly; prompt_sampler=vas would change that"),
        ({"prompt_sampler": "vas"}, "This run draws so."),
        ({"prompt_sampler": "solvable", "method": "dapo"}, "among prompts that the start model solved"),
        ({"method": "spo", "group_size": 1}, "by the success rates that it tracks"),
    ],
)
def test_how_the_run_itself_draws_is_said(settings: dict, sentence: str) -> None:
    run = type("Run", (), {"config": make_config(settings)})
    assert sentence in sampler_sentence(run, with_scores(prompts(), alpha=0.8, beta=0.2, batch=8, weighted=0.5))


def test_what_a_run_remembers_of_a_prompt_is_shown_step_by_step(tmp_path, open_page) -> None:
    """A run with one rollout per prompt and a tracker: nothing about ties is claimed, and the prompt's p̂ is a curve and a table."""
    run = make_run(tmp_path, {"method": "spo", "group_size": 1}, recorded=3, state="finished", remembered={"p": 0.25, "alpha": 2.0, "kept": 0.9})
    app = open_page(tmp_path, "variance", run=run)
    said = words_of(app)
    assert "Which groups carry a signal is not available: with one rollout per prompt" in said and "(starvation)" not in said
    assert "draws prompts by the success rates that it tracks" in said
    assert "What the run remembers of it" in said and "Success rate p̂ 0.250" in said
    assert [column["title"] for column in rows_of(app, "variance.states")["columns"]] == ["Step", "Success rate p̂", "ρ kept", "α"]
