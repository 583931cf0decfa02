"""One group: where it stands among its neighbours, its prompt, and its rollouts token by token."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from pages.components import data, empty, url
from pages.components.data import Run
from pages.components.prompt_card import prompt_card
from pages.components.step_groups import neighbours
from pages.components.text import counted
from pages.components.token_strip import QUANTITIES, measured, strip_data, token_strip

SHOWN = ("All", "Correct", "Wrong")
LAYOUTS = ("Side by side", "Stacked")
TOKENS_AT_ONCE = 40_000
"""More rollouts than fit into this many tokens are shown in parts."""


def chosen_group(groups: pd.DataFrame) -> int:
    """The group in the address, else the first one with both right and wrong rollouts, else the first."""
    asked = url.whole("group")
    if asked is not None:
        return asked
    mixed = groups.loc[groups["outcome"] == "mixed", "group_index"]
    return int((mixed if len(mixed) else groups["group_index"]).iloc[0])


def group_picker(group: int, count: int) -> None:
    """Previous and next group of the step."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="xsmall", width="content"):
        st.button(
            "Group", icon=":material/chevron_left:", key="group.before", disabled=group <= 0, on_click=_go, args=(group - 1,), help="Previous group of the step"
        )
        st.button(
            "Group",
            icon=":material/chevron_right:",
            icon_position="right",
            key="group.after",
            disabled=group >= count - 1,
            on_click=_go,
            args=(group + 1,),
            help="Next group of the step",
        )


def about_prompt(run: Run, group) -> None:
    """The prompt as given and the expected answer as plain text, what of it is a hint, and when else this prompt was sampled."""
    notes = [*hint_notes(group.hint_tokens), _history(data.prompt_history(run, group.prompt_hash), int(group.step))]
    if not group.kept:
        notes.append(f"Dropped from the loss: {group.reason}.")
    prompt_card(group.prompt, group.answer, notes, key="group.prompt")


def rollout_strip(run: Run, rollouts: pd.DataFrame, steps: pd.DataFrame, step: int, group: int) -> None:
    """The controls and the rollouts; keys move between rollouts, tokens and steps."""
    tokens = measured(rollouts) if rollouts["thinned"].ne(True).any() else []
    quantity, shown, layout = _controls(tokens, "delta" if rollouts["rescored"].any() else "advantage", help=_without_nthr(run, rollouts, step))
    fitting = _filtered(rollouts, shown)
    pages = parts(fitting["length"].to_numpy(), TOKENS_AT_ONCE)
    chosen = url.whole("rollout")
    first, end = _part(fitting, pages, chosen)
    pieces = data.vocabulary(run)
    if not pieces:
        empty.nothing("The text of the tokens is not available", "This run has no vocabulary, so tokens show as their ids.")
    identity = f"{run.run_id} {run.status.attempt} {step} {group} {shown} {first}"
    strip = strip_data(fitting.iloc[first:end], pieces, quantity, identity=identity, chosen=chosen, stacked=layout == "Stacked")
    token_strip(strip, key="group.strip", on_rollout=_choose_rollout, on_move=_ask_move)
    if by := st.session_state.pop("group.move", 0):
        before, after = neighbours(step, steps["step"].to_numpy())
        target = after if by > 0 else before
        if target is not None:
            url.put(step=target, rollout=None)
            st.rerun()


def parts(lengths: np.ndarray, at_once: int) -> list[tuple[int, int]]:
    """Consecutive (first, end) stretches of rollouts whose tokens add up to at most `at_once`, each at least one rollout."""
    stretches, first, total = [], 0, 0
    for row, length in enumerate(lengths):
        if row > first and total + length > at_once:
            stretches.append((first, row))
            first, total = row, 0
        total += length
    return [*stretches, (first, len(lengths))]


def _controls(quantities: list[str], first: str, *, help: str | None) -> tuple[str, str, str]:
    """The chosen one of `quantities` (`first` unless the address says another, or there is none), which rollouts to show, and the layout."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        quantity = url.choice("quantity", quantities, first)
        if quantities:
            changed = url.sync("quantity", "group.quantity", quantity, default=first)
            st.segmented_control(
                "Colour tokens by", quantities, required=True, key="group.quantity", on_change=changed, format_func=lambda key: QUANTITIES[key].label, help=help
            )
        shown = url.choice("show", SHOWN, "All")
        changed = url.sync("show", "group.show", shown, default="All")
        st.segmented_control("Rollouts", SHOWN, required=True, key="group.show", on_change=changed)
        layout = url.choice("layout", LAYOUTS, LAYOUTS[0])
        changed = url.sync("layout", "group.layout", layout, default=LAYOUTS[0])
        st.segmented_control("Layout", LAYOUTS, required=True, key="group.layout", on_change=changed)
    return quantity, shown, layout


def _without_nthr(run: Run, rollouts: pd.DataFrame, step: int) -> str | None:
    """Why NTHR is not among the quantities, and how to have it; None where it is."""
    every = 1 if run.config.method_row.needs_hidden_states else run.config.nthr_every
    if rollouts["nthr"].notna().any():
        return None
    if not every:
        return "NTHR, what pushing a wrong rollout's token down takes from the correct ones, is not recorded in this run; `--nthr-every 1` records it."
    if step % every:
        return f"NTHR is measured every {every} steps, and not at this one."
    return "NTHR compares wrong with correct rollouts of a group; this one has nothing to compare."


def _filtered(rollouts: pd.DataFrame, shown: str) -> pd.DataFrame:
    if shown == "All":
        return rollouts
    return rollouts[[correct is not None and bool(correct) == (shown == "Correct") for correct in rollouts["correct"]]]


def _part(rollouts: pd.DataFrame, pages: list[tuple[int, int]], chosen: int | None) -> tuple[int, int]:
    """The stretch with the chosen rollout, or the one picked."""
    if len(pages) == 1:
        return pages[0]
    at = np.flatnonzero(rollouts["rollout_index"].to_numpy() == chosen)
    current = next((n for n, (first, end) in enumerate(pages) if len(at) and first <= at[0] < end), 0)
    index = rollouts["rollout_index"].to_numpy()
    picked = st.segmented_control(
        f"Part of {counted(len(rollouts), 'rollout')}", range(len(pages)), default=current, required=True, key=f"group.part.{current}",
        format_func=lambda n: f"{index[pages[n][0]]}–{index[pages[n][1] - 1]}",
    )  # fmt: skip
    return pages[picked]


def hint_notes(tokens: float) -> list[str]:
    """What of the prompt is a hint, as a sentence or none; older runs do not say (NaN) and gave none."""
    if pd.isna(tokens) or not tokens:
        return []
    return [
        f"The last {counted(int(tokens), 'token')} of the prompt {'is' if tokens == 1 else 'are'} a hint, the beginning of the worked answer: without it, the "
        "rollouts of the group before this one stayed below the mean reward of recent groups. Rewards are those of the whole answer, hint included."
    ]


def _history(history: pd.DataFrame, step: int) -> str:
    others = history[history["step"] != step]
    if others.empty:
        return "This prompt was sampled in no other step so far."
    seen = [f"step {row.step} ({row.correct} of {row.size} correct)" for row in others.tail(6).itertuples()]
    more = f", and {len(others) - 6} before" if len(others) > 6 else ""
    return f"This prompt was also sampled in {', '.join(seen)}{more}."


def _choose_rollout() -> None:
    url.put(rollout=int(st.session_state["group.strip"].rollout))


def _ask_move() -> None:
    st.session_state["group.move"] = int(st.session_state["group.strip"].move)


def _go(group: int) -> None:
    url.put(group=group, rollout=None)
