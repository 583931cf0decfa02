"""What a person can do to a run: stop it, go on with it, describe it, thin its tokens."""

from __future__ import annotations

import shlex
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import streamlit as st

from grpo_core.errors import GroupscopeError
from grpo_core.launch.retain import retain_beside, retain_command
from grpo_core.launch.start import resume_run
from grpo_core.launch.stop import StopResult, stop_run
from pages.components import data
from pages.components.frames import part, plainly
from pages.components.text import counted, escape
from storage.retention import Retention, size_text

STOPS_AT_ONCE = 8
STOP, ASKED, EDIT, THIN, THINNING = "stop.run", "stop.asked", "edit.run", "thin.run", "thin.asked"
"""Session keys: the run a dialog is about, the run that has been asked to stop, a run and the policy to thin it by, and whether that was begun."""


class StopDesk:
    """Stops runs in the background: a run may need a while to finish its step, and the page stays alive meanwhile."""

    def __init__(self) -> None:
        self._workers = ThreadPoolExecutor(STOPS_AT_ONCE, thread_name_prefix="stop")
        self._stops: dict[tuple[Path, str], Future[StopResult]] = {}

    def ask(self, root: Path, run_id: str) -> None:
        """Begin to stop a run; a second call while the first is under way changes nothing."""
        under_way = self._stops.get((root, run_id))
        if under_way is None or under_way.done():
            self._stops[root, run_id] = self._workers.submit(stop_run, root, run_id)

    def result(self, root: Path, run_id: str) -> StopResult | None:
        """How the stop went, None while it is under way. Raises what stop_run raises."""
        stop = self._stops.get((root, run_id))
        return stop.result() if stop is not None and stop.done() else None


@st.cache_resource(show_spinner=False)
def _desk() -> StopDesk:
    return StopDesk()


def ask_to_stop(run_id: str) -> NoReturn:
    """Open the confirmation."""
    _ask(STOP, run_id)


def ask_to_edit(run_id: str) -> NoReturn:
    """Open the form for name, tags and note."""
    _ask(EDIT, run_id)


def ask_to_thin(run_id: str, retention: Retention) -> NoReturn:
    """Open the confirmation of what a policy takes."""
    _ask(THIN, (run_id, retention))


def _ask(what: str, about: object) -> NoReturn:
    """Also a callback asks for the whole page: a click that the browser sends together with a tick reruns only the part that ticked."""
    _forget()
    st.session_state[what] = about
    st.rerun()


def dialogs() -> None:
    """Open the dialog that was asked for, until it is closed.

    Call once, from the page itself and before it draws anything slow: a run of the whole page takes the dialog away until it gets here,
    and what is behind it then gets the clicks. So the page must not run anew of its own accord while `asking()`.
    """
    if STOP in st.session_state:
        _stop_dialog(st.session_state[STOP])
    elif EDIT in st.session_state:
        _edit_dialog(st.session_state[EDIT])
    elif THIN in st.session_state:
        _thin_dialog(*st.session_state[THIN])


def asking() -> bool:
    """Whether a dialog is open."""
    return any(key in st.session_state for key in (STOP, EDIT, THIN))


def _forget() -> None:
    for key in (STOP, ASKED, EDIT, THIN, THINNING):
        st.session_state.pop(key, None)


@st.dialog("Stop this run?", icon=":material/stop_circle:", on_dismiss=_forget)
def _stop_dialog(run_id: str) -> None:
    if st.session_state.get(ASKED) == run_id:
        _outcome(run_id)
        return
    with plainly():
        run = data.run(run_id)
        where = f"is at step {run.status.step} of {run.status.steps}" if run.status.step else "has not finished a step yet"
        st.markdown(f"**{escape(run.name)}** {where}. It finishes the current step, writes a checkpoint and ends.")
    with st.container(horizontal=True, horizontal_alignment="right"):
        st.button("Keep running", key="stop.no", on_click=_close)
        st.button("Stop run", key="stop.yes", type="primary", icon=":material/stop_circle:", on_click=_stop, args=(run_id,))


def _stop(run_id: str) -> None:
    _desk().ask(data.root(), run_id)
    st.session_state[ASKED] = run_id


@part(key="stop.outcome", every_s=0.5)
def _outcome(run_id: str) -> None:
    result = _desk().result(data.root(), run_id)
    if result is None:
        st.info("Asked. The run is finishing its step; after 30 s it is ended by force.", icon=":material/hourglass_top:")
        return
    tell = st.success if result.outcome in ("stopped", "already_over") else st.warning
    tell(escape(result.sentence))
    with st.container(horizontal=True, horizontal_alignment="right"):
        st.button("Close", key="stop.close", on_click=_close)


@st.dialog("Name, tags and note", icon=":material/edit:", on_dismiss=_forget)
def _edit_dialog(run_id: str) -> None:
    with plainly():
        run = data.run(run_id)
        known = sorted({tag for tags in data.catalog().annotations()["tags"] for tag in tags})
        name = st.text_input("Name", run.name, max_chars=120, key="edit.name")
        tags = st.multiselect("Tags", known, list(run.tags), accept_new_options=True, key="edit.tags", placeholder="Type a tag and press Enter")
        note = st.text_area("Note", run.note, max_chars=4000, key="edit.note")
        if st.button("Save", key="edit.save", type="primary"):
            data.catalog().rename(run_id, name.strip() or run.config.title)
            data.catalog().set_tags(run_id, tags)
            data.catalog().set_note(run_id, note.strip())
            _close()


class ThinDesk:
    """Thins runs in the background, each in a process of its own."""

    def __init__(self) -> None:
        self._workers = ThreadPoolExecutor(STOPS_AT_ONCE, thread_name_prefix="thin")
        self._jobs: dict[tuple[Path, str], Future[str]] = {}

    def ask(self, root: Path, run_id: str, retention: Retention) -> None:
        """Begin; a second call for the run while the first is under way changes nothing."""
        under_way = self._jobs.get((root, run_id))
        if under_way is None or under_way.done():
            self._jobs[root, run_id] = self._workers.submit(retain_beside, root, run_id, retention, by="the app")

    def result(self, root: Path, run_id: str) -> str | None:
        """What was freed, None while it is under way. Raises what retain_beside raises."""
        job = self._jobs[root, run_id]
        return job.result() if job.done() else None


@st.cache_resource(show_spinner=False)
def _thin_desk() -> ThinDesk:
    return ThinDesk()


@st.dialog("Take these tokens for good?", icon=":material/content_cut:", on_dismiss=_forget)
def _thin_dialog(run_id: str, retention: Retention) -> None:
    if st.session_state.get(THINNING):
        _thinned(run_id)
        return
    with plainly():
        run = data.run(run_id)
        plan = data.outlook(run)(retention)
        if plan.lost.empty:
            st.info("Nothing is left to take by this policy; close this window.", icon=":material/info:")
            return
        st.markdown(
            f"**{escape(run.name)}** loses the token lists of **{counted(len(plan.lost), 'group')}** in **{counted(len(plan.steps), 'step')}** "
            f"({plan.steps[0]} to {plan.steps[-1]}), about **{size_text(plan.freed_bytes)}**, by the policy '{escape(retention.sentence)}'."
        )
        st.markdown("Every figure, text and reward stays, and so do the tokens of flagged groups. What is taken cannot be brought back.")
        st.code(shlex.join(retain_command(run_id, retention)), language=None, wrap_lines=True)
        with st.container(horizontal=True, horizontal_alignment="right"):
            st.button("Keep everything", key="thin.no", on_click=_close)
            st.button("Take them", key="thin.yes", type="primary", icon=":material/content_cut:", on_click=_thin, args=(run_id, retention))


def _thin(run_id: str, retention: Retention) -> None:
    _thin_desk().ask(data.root(), run_id, retention)
    st.session_state[THINNING] = True


@part(key="thin.outcome", every_s=0.5)
def _thinned(run_id: str) -> None:
    try:
        said = _thin_desk().result(data.root(), run_id)
    except GroupscopeError as error:
        st.error(escape(str(error)), icon=":material/error:")
    else:
        if said is None:
            st.info("Thinning. Old files go about 12 s after the new ones count; closing this window stops nothing.", icon=":material/hourglass_top:")
            return
        st.success(escape(f"{said[:1].upper()}{said[1:]}."))
    with st.container(horizontal=True, horizontal_alignment="right"):
        st.button("Close", key="thin.close", on_click=_close)


def _close() -> NoReturn:
    _forget()
    st.rerun()


def resume(run_id: str) -> None:
    """Go on with a run from its newest checkpoint; says why if it cannot."""
    with plainly():
        resume_run(data.root(), run_id)
