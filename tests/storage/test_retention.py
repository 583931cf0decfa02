"""Tokens of old steps go by a policy; everything else stays, is counted once at every moment, and what went is on record."""

import inspect
import os
import shutil
import signal
import time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from storage import compaction, thinning
from storage.catalog import Catalog
from storage.errors import DiskFull, RunLocked, SegmentDamaged, StoreError
from storage.layout import list_segments, visible
from storage.queries import conflicts, evidence, groups, integrity, lab, likelihood, steps, variance
from storage.queries.retention import NAMED, alert_steps, named_groups
from storage.reader import Store
from storage.retention import ALERT, ALERT_REACH, FIRST, KEEPS, LIVE_SLACK, NEWEST, RECENT, SMALL, TOKEN_LISTS, Retention, Survey, plan, size_text, survey
from storage.segments import RunWriter, seal
from storage.thinning import RECORD, Retain, make_plan, read_record, retain
from tests.factories import make_step_tables
from tests.storage import victims

EVERY = Retention(keep="every", every=5, recent=8)
STEPS = 40
GRACE_S = compaction.GRACE_S
FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(compaction, "SINCE_DELAY_S", 0.05)
    monkeypatch.setattr(compaction, "GRACE_S", 0.1)
    monkeypatch.setattr(compaction, "BLOCK", 16)
    monkeypatch.setattr("storage.retention.BLOCK", 16)


@pytest.fixture
def ended(run_dir: Path) -> Path:
    """A run of 40 steps in segments of 16, 16 and one each; nobody writes it."""
    with RunWriter.open(run_dir) as writer:
        writer.write_vocabulary(["a", "b"])
        for step in range(STEPS):
            writer.append_step(make_step_tables(step, groups=4, tokens=60))
            writer.compact()
    return run_dir


def survey_of(rows: list[tuple[int, int, float]], **more) -> Survey:
    """Groups as (step, group_index, bytes), all in one large file."""
    frame = pd.DataFrame(rows, columns=["step", "group_index", "bytes"]).assign(file=0, thinned=False, merged=True, last=rows[-1][0])
    return Survey(None, (), frame.assign(**more))


NOTHING = pd.DataFrame({"step": pd.Series(dtype="i8"), "group_index": pd.Series(dtype="i8"), "reason": pd.Series(dtype=object)})
TEN = survey_of([(step, group, 100.0) for step in range(10) for group in range(2)])


# Plans ---------------------------------------------------------------------------------------------------------------


def test_every_third_step_by_hand():
    # steps 0 to 9, the newest two (8, 9) and the first stay, as do 3 and 6; of the others, 1 2 4 5 7, two groups of 100 bytes each go
    chosen = plan(Retention(keep="every", every=3, recent=2), TEN, NOTHING)
    assert chosen.steps == [1, 2, 4, 5, 7] and chosen.freed_bytes == 1000 and chosen.token_bytes == 2000
    assert {one.reason: (one.steps, one.groups, one.bytes) for one in chosen.kept()} == {
        "every 3rd step": (2, 4, 400), "newest steps": (2, 4, 400), "first step": (1, 2, 200),
    }  # fmt: skip


def test_evidence_stays_under_every_policy():
    named = pd.DataFrame({"step": [2, 4], "group_index": [1, 0], "reason": ["lost most likelihood", "strongest conflict"]})
    for policy in (Retention(keep="every", every=7, recent=0), Retention(keep="flagged", recent=0), Retention(keep="budget", budget_bytes=1, recent=0)):
        chosen = plan(policy, TEN, named, alerts=[7])
        lost = set(zip(chosen.lost["step"], chosen.lost["group_index"]))
        assert lost == {(1, 0), (1, 1), (2, 0), (3, 0), (3, 1), (4, 1)}, policy
        reasons = {one.reason: one.groups for one in chosen.kept()}
        assert reasons["near an alert"] == 10 and reasons["lost most likelihood"] == reasons["strongest conflict"] == 1 and reasons["first step"] == 2


def test_a_budget_takes_the_oldest_steps_and_says_what_it_cannot_meet():
    # 2000 bytes, 1500 may stay: steps 1, 2 and half of 3 would do, and a step goes as a whole
    assert plan(Retention(keep="budget", budget_bytes=1500, recent=2), TEN, NOTHING).steps == [1, 2, 3]
    assert plan(Retention(keep="budget", budget_bytes=1600, recent=2), TEN, NOTHING).steps == [1, 2]
    assert plan(Retention(keep="budget", budget_bytes=1600, recent=2), TEN, NOTHING, live=True).steps == []  # its file has new steps
    roomy = plan(Retention(keep="budget", budget_bytes=2000, recent=2), TEN, NOTHING)
    assert roomy.steps == [] and roomy.over_bytes == 0
    tight = plan(Retention(keep="budget", budget_bytes=100, recent=2), TEN, NOTHING)
    assert tight.steps == list(range(1, 8)) and tight.over_bytes == 500  # steps 0, 8 and 9 stay: 600 bytes


def test_small_files_and_what_went_before_are_left_alone():
    small = survey_of(TEN.groups[["step", "group_index", "bytes"]].values.tolist(), merged=False)
    assert plan(Retention(keep="flagged", recent=0), small, NOTHING).lost.empty
    gone = survey_of([(step, 0, 0.0 if step < 5 else 100.0) for step in range(10)], thinned=np.arange(10) < 5)
    chosen = plan(Retention(keep="flagged", recent=2), gone, NOTHING)
    assert chosen.steps == [5, 6, 7] and {one.reason for one in chosen.kept()} == {"thinned before", "newest steps"}


def test_keep_all_takes_nothing():
    assert plan(Retention(), TEN, NOTHING).lost.empty


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (dict(keep="evry"), "unknown retention 'evry'; known: all, every, flagged, budget"),
        (dict(keep="every", every=1), "every needs 2 or more"),
        (dict(keep="budget"), "give a size, e.g. 2GB"),
        (dict(keep="flagged", every=3), "read only by the policy every"),
        (dict(keep="all", budget_bytes=3), "read only by the policy budget"),
        (dict(recent=-1), "the default is 64"),
    ],
)
def test_a_policy_that_cannot_work_says_why(settings, says):
    with pytest.raises(StoreError, match=says):
        Retention(**settings)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (3_240_000, "3.2 MB"), (99_600_000, "100 MB"), (2.5e12, "2.5 TB"), (4e15, "4000 TB")],
)
def test_sizes_as_people_read_them(size, text):
    assert size_text(size) == text


@pytest.mark.parametrize(("every", "words"), [(2, "2nd"), (3, "3rd"), (11, "11th"), (21, "21st"), (112, "112th")])
def test_a_policy_in_words(every, words):
    assert Retention(keep="every", every=every).sentence == f"every {words} step"


def test_one_group_per_step_is_named_by_each_figure(ended):
    found = named_groups(survey(ended).layout)
    figures = Store(ended.parent.parent).frame("r1", "select step, group_index, delta_correct, conflict_net from groups")
    for reason, column in (("lost most likelihood", "delta_correct"), ("strongest conflict", "conflict_net")):
        lowest = figures[figures[column] < 0].sort_values([column, "group_index"]).drop_duplicates("step")
        want = set(zip(lowest["step"], lowest["group_index"]))
        assert {(row.step, row.group_index) for row in found[found["reason"] == reason].itertuples()} == want
    assert (found["reason"] == "lost most likelihood").any()


def test_alerts_are_those_of_the_run(tmp_path):
    assert alert_steps(tmp_path, "r1") == [] and not list(tmp_path.iterdir())
    catalog = Catalog(tmp_path)
    for run_id, step in (("r1", 9), ("r1", 4), ("r1", 9), ("r2", 5)):
        catalog.record_alert(run_id, step=step, level="unhealthy", cause="", sentence="", link="", at=0.0)
    assert alert_steps(tmp_path, "r1") == [4, 9]


# On disk -------------------------------------------------------------------------------------------------------------


def rollouts(store: Store) -> pd.DataFrame:
    return store.frame("r1", "select * from rollouts order by step, group_index, rollout_index")


def test_only_the_lists_of_old_steps_go_and_the_estimate_is_what_is_freed(ended, store, plain):
    before = rollouts(store)
    chosen = make_plan(ended, EVERY)
    size = sum(path.stat().st_size for path in (ended / "rollouts").iterdir())
    done = retain(ended, EVERY, by="a test")
    freed = size - sum(path.stat().st_size for path in (ended / "rollouts").iterdir())
    assert freed == sum(one.bytes_freed for one in done) == pytest.approx(chosen.freed_bytes, rel=0.15)
    after = rollouts(store)
    lost = set(zip(chosen.lost["step"], chosen.lost["group_index"]))
    gone = np.array([(row.step, row.group_index) in lost for row in before.itertuples()])
    assert gone.any() and chosen.steps == [s for s in range(1, 32) if s % 5]
    kept = [name for name in before if name not in (*TOKEN_LISTS, "thinned")]
    pd.testing.assert_frame_equal(after[kept], before[kept])
    pd.testing.assert_frame_equal(after[~gone], before[~gone])
    assert after.loc[gone, list(TOKEN_LISTS)].isna().all().all() and after.loc[gone, "thinned"].all() and after.loc[~gone, "thinned"].isna().all()
    assert store.damaged("r1") == []
    assert plain("select count(*), count(token_ids), count(*) filter (where thinned) from rollouts") == [(len(before), int((~gone).sum()), int(gone.sum()))]
    assert plain("select count(*) from tokens where step = 1 and group_index not in (select group_index from groups where delta_correct < 0)") == [(0,)]
    assert make_plan(ended, EVERY).lost.empty and retain(ended, EVERY, by="a test") == ()


def test_every_question_that_needs_no_tokens_is_answered_as_before(ended, store):
    hashes = store.frame("r1", "select distinct prompt_hash from groups")["prompt_hash"].tolist()
    ask = {
        steps: {"step": 3},
        variance: {"prompt_hash": hashes[0]},
        groups: {"step": 3, "group_index": 1, "prompt_hash": hashes[0]},
        conflicts: {"step": 3},
        integrity: {},
        lab: {"step": 3},
        evidence: {"step": 3, "lowest": True, "figure": "delta_correct", "group_index": 1, "token_id": 1},
    }
    tokens_needed = {"rollouts_of_group", "pushed_rollouts", "pushed_rollouts_of_group", "rollouts_of_step", "lost_token"}

    def answers() -> dict[str, object]:
        found = {}
        for module, known in ask.items():
            for name, question in inspect.getmembers(module, inspect.isfunction):
                if question.__module__ == module.__name__ and not name.startswith("_") and name not in tokens_needed:
                    wanted = [p for p in inspect.signature(question).parameters.values() if p.name in known]
                    found[f"{module.__name__}.{name}"] = question(store, "r1", **{p.name: known[p.name] for p in wanted})
        return found

    before = answers()
    retain(ended, Retention(keep="flagged", recent=8), by="a test")
    assert len(before) >= 17
    for name, answer in answers().items():
        if isinstance(answer, pd.DataFrame):
            pd.testing.assert_frame_equal(answer, before[name], obj=name)
        else:
            assert answer == before[name] or answer != answer, name
    assert len(groups.rollouts_of_group(store, "r1", 3, 1)) == 4 and likelihood.worst_tokens(store, "r1", 3)["group_index"].nunique() <= 1


def test_what_went_is_on_record(ended):
    before = time.time()
    done = retain(ended, EVERY, by="a test")
    assert read_record(ended) == done and [(one.first, one.last) for one in done] == [(0, 15), (16, 31)]
    assert done[0].steps == ((1, 4), (6, 9), (11, 14)) and done[0].policy == "every 5th step" and done[0].by == "a test"
    assert done[0].holds(4) and not done[0].holds(5) and before <= done[0].at <= time.time()
    with (ended / RECORD).open("ab") as file:
        file.write(b'{"at": 1, "by')  # a kill while writing
    more = retain(ended, Retention(keep="flagged", recent=8), by="another")
    assert read_record(ended) == (*done, *more) and more


def test_a_thinned_run_is_merged_cut_resumed_and_sealed(ended, store):
    retain(ended, EVERY, by="a test")
    want = rollouts(store)
    with RunWriter.open(ended) as writer:
        pd.testing.assert_frame_equal(rollouts(store), want)
        for step in range(STEPS, STEPS + 10):
            writer.append_step(make_step_tables(step, groups=4, tokens=60))
            writer.compact()
        pd.testing.assert_frame_equal(rollouts(store).head(len(want)), want)
        writer.supersede(20)
        assert rollouts(store)["step"].max() == 20
    seal(ended)
    pd.testing.assert_frame_equal(rollouts(store), want[want["step"] <= 20])


def test_a_run_that_is_written_or_damaged_is_left_as_it_is(ended, store):
    with RunWriter.open(ended), pytest.raises(RunLocked):
        retain(ended, EVERY, by="a test")
    second = [s for s in list_segments(ended / "rollouts") if s.merged][1]
    data = bytearray(second.path.read_bytes())
    data[60] ^= 1
    second.path.write_bytes(data)
    with pytest.raises(SegmentDamaged, match=second.path.name):
        retain(ended, EVERY, by="a test")
    assert read_record(ended) == () and store.frame("r1", "select count(*) as n from rollouts where thinned", skip_damaged=True)["n"].iloc[0] == 0


def test_a_sealed_run_is_thinned_too_and_can_be_resumed(ended, store, plain):
    seal(ended)
    before, size = rollouts(store), sum(path.stat().st_size for path in (ended / "sealed" / "rollouts").iterdir())
    chosen = make_plan(ended, EVERY)
    (done,) = retain(ended, EVERY, by="a test")
    freed = size - sum(path.stat().st_size for path in (ended / "sealed" / "rollouts").iterdir())
    assert freed == done.bytes_freed == pytest.approx(chosen.freed_bytes, rel=0.15)
    after = rollouts(store)
    scalars = [name for name in before if name not in (*TOKEN_LISTS, "thinned")]
    pd.testing.assert_frame_equal(after[scalars], before[scalars])
    assert after["thinned"].sum() == done.rollouts > 0 and store.damaged("r1") == [] and done.steps[-1][1] == STEPS - 8 - 1
    assert plain("select count(*), count(*) filter (where thinned) from rollouts") == [(len(before), done.rollouts)]
    with RunWriter.open(ended) as writer:
        pd.testing.assert_frame_equal(rollouts(store), after)
        writer.append_step(make_step_tables(STEPS, groups=4, tokens=60))
    seal(ended)
    pd.testing.assert_frame_equal(rollouts(store).head(len(after)), after)


def test_a_sealed_run_with_both_files_after_a_kill_is_read_once_and_resumed_without_the_old_one(ended, store, plain):
    seal(ended)
    old = {path.name: path.read_bytes() for path in (ended / "sealed" / "rollouts").iterdir()}
    (done,) = retain(ended, EVERY, by="a test")
    for name, data in old.items():  # as if it had been killed before it removed the old one
        (ended / "sealed" / "rollouts" / name).write_bytes(data)
    time.sleep(0.1)
    count = STEPS * 16
    assert len(rollouts(store)) == count and rollouts(store)["thinned"].sum() == done.rollouts
    assert plain("select count(*), count(*) filter (where thinned) from rollouts") == [(count, done.rollouts)]
    with RunWriter.open(ended):
        assert len(list_segments(ended / "rollouts")) == 1 and rollouts(store)["thinned"].sum() == done.rollouts


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_run_that_an_earlier_version_sealed_says_what_to_do(tmp_path, version):
    shutil.unpack_archive(FIXTURES / f"{version}.zip", tmp_path)
    run_dir = tmp_path / "runs" / "sealed"
    with pytest.raises(StoreError, match="in run.duckdb.*`python -m grpo_core seal"):
        make_plan(run_dir, EVERY)
    seal(run_dir)
    assert make_plan(run_dir, EVERY).lost.empty


def test_a_comparison_that_fails_takes_nothing(ended, store, monkeypatch):
    before = rollouts(store)
    monkeypatch.setattr(thinning, "_emptied", lambda table, lost: table.slice(0, 0))
    with pytest.raises(StoreError, match="no token is gone"):
        retain(ended, EVERY, by="a test")
    pd.testing.assert_frame_equal(rollouts(store), before)
    assert read_record(ended) == () and not list((ended / "rollouts").glob(".tmp-*"))


def test_a_full_disk_in_the_middle_takes_nothing_half(ended, store, monkeypatch):
    before, write, calls = rollouts(store), thinning.write_parquet, []

    def second_finds_no_room(path, tables, *more):
        calls.append(path)
        if len(calls) == 2:
            write(path, [next(iter(tables))], *more)
            raise OSError(28, "No space left on device")
        write(path, tables, *more)

    monkeypatch.setattr(thinning, "write_parquet", second_finds_no_room)
    with pytest.raises(DiskFull, match="free"):
        retain(ended, EVERY, by="a test")
    after = rollouts(store)
    assert [(one.first, one.last) for one in read_record(ended)] == [(0, 15)]
    pd.testing.assert_frame_equal(after[after["step"] > 15], before[before["step"] > 15])
    assert len(after) == len(before) and not list((ended / "rollouts").glob(".tmp-*"))
    monkeypatch.undo()


# While others read, and after kills ----------------------------------------------------------------------------------


def test_of_files_with_the_same_steps_the_later_one_counts_for_both_readers(ended, store, plain):
    names = {path.name: path.read_bytes() for path in (ended / "rollouts").iterdir()}
    retain(ended, EVERY, by="a test", settle=False)
    time.sleep(0.1)
    for name, data in names.items():  # the old ones too, as before they were removed
        (ended / "rollouts" / name).write_bytes(data)
    listed = list_segments(ended / "rollouts")
    assert len([s for s in listed if (s.first, s.last) == (0, 15)]) == 2
    counted = [s for s in visible(listed) if (s.first, s.last) == (0, 15)]
    assert len(counted) == 1 and counted[0].path.name not in names
    assert len(rollouts(store)) == STEPS * 16 and rollouts(store)["thinned"].sum() == sum(one.rollouts for one in read_record(ended))
    assert plain("select count(*), sum(thinned::int) from rollouts") == [(STEPS * 16, sum(one.rollouts for one in read_record(ended)))]
    time.sleep(compaction.GRACE_S)
    retain(ended, EVERY, by="a test")  # a later call removes what was left
    assert len([s for s in list_segments(ended / "rollouts") if (s.first, s.last) == (0, 15)]) == 1


def test_views_count_every_step_once_before_at_and_after_since(ended, plain, monkeypatch):
    monkeypatch.setattr(compaction, "SINCE_DELAY_S", 1.0)
    retain(ended, EVERY, by="a test", settle=False)
    seen, until = set(), time.monotonic() + 1.5
    with duckdb.connect(str(ended / "run.duckdb"), read_only=True) as database:
        while time.monotonic() < until:
            rows, steps, thinned = database.execute("select count(*), count(distinct step), count(*) filter (where thinned) from rollouts").fetchone()
            assert (rows, steps) == (STEPS * 16, STEPS)
            seen.add(thinned > 0)
    assert seen == {False, True}


def test_kills_between_publishing_and_removing(processes, ended, store):
    """The victim thins with ever fewer steps kept; after each kill both readers see every step once, and what was kept keeps its tokens."""
    before = rollouts(store)
    scalars = [name for name in before if name not in (*TOKEN_LISTS, "thinned")]
    for every, pause_s in ((9, 0.0), (8, 0.15), (7, 0.3), (6, 0.6)):
        process = processes.Process(target=victims.thin, args=(ended, every, 16))
        process.start()
        lines = len(read_record(ended))
        until = time.monotonic() + 60
        while len(read_record(ended)) == lines and process.is_alive() and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(pause_s / 4)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        after = rollouts(store)
        pd.testing.assert_frame_equal(after[scalars], before[scalars])
        with duckdb.connect(str(ended / "run.duckdb"), read_only=True) as database:
            assert database.execute("select count(*), count(distinct (step, group_index, rollout_index)) from rollouts").fetchone() == (len(before),) * 2
        assert after.loc[after["step"] == 0, "token_ids"].notna().all() and store.damaged("r1") == []
    retain(ended, Retention(keep="flagged", recent=8), by="a test")
    assert len(visible(list_segments(ended / "rollouts"))) == len(list_segments(ended / "rollouts"))
    assert not list((ended / "rollouts").glob(".tmp-*"))


def test_a_live_run_thins_one_file_at_a_time(run_dir, store):
    catalog = Catalog(run_dir.parent.parent)
    catalog.record_alert("r1", step=9, level="unhealthy", cause="", sentence="", link="", at=0.0)
    with RunWriter.open(run_dir) as writer:
        for step in range(STEPS):
            writer.append_step(make_step_tables(step, groups=4, tokens=60))
            writer.compact()
        question = Retain(run_dir, "rounded", os.getppid(), EVERY, run_dir.parent.parent)
        time.sleep(0.1)
        (said,) = question()
        assert "thinned steps 0 to 15 by the policy 'every 5th step'" in said and "freed" in said
        assert read_record(run_dir)[0].by == "the run itself" and not read_record(run_dir)[0].holds(9)
        (said,) = question()
        assert "thinned steps 16 to 31" in said
        assert question() == ()
        assert Retain(run_dir, "rounded", 1, EVERY, None)() == (), "another process writes the run now"
        assert store.damaged("r1") == [] and len(rollouts(store)) == STEPS * 16
        writer.append_step(make_step_tables(STEPS, groups=4, tokens=60))
        catalog_file = run_dir.parent.parent / "catalog.sqlite"
        catalog_file.write_bytes(b"no database, but of the length of one" * 100)
        (said,) = Retain(run_dir, "rounded", os.getppid(), Retention(keep="flagged", recent=8), run_dir.parent.parent)()
        assert "not thinned" in said and "catalogue" in said, "without alerts nobody knows what is evidence"


def test_the_default_keeps_the_newest_steps(ended):
    assert RECENT == 64 and make_plan(ended, Retention(keep="flagged")).lost.empty


def test_the_page_on_retention_says_what_the_code_does():
    page = (Path(__file__).parents[2] / "docs" / "retention.md").read_text(encoding="utf-8")
    reasons = {*NAMED, ALERT, FIRST, NEWEST, SMALL}
    assert all(f"| `{reason}` |" in page for reason in reasons) and all(f"| `{keep}` |" in page for keep in KEEPS)
    assert page.count("| `") == len(reasons) + len(KEEPS)
    assert f"the newest {RECENT} steps" in page and f"up to {ALERT_REACH} before and after an alert" in page and RECORD in page
    assert f"\n{GRACE_S:.0f} s after that" in page and LIVE_SLACK == 0.1 and "a tenth below it" in page
