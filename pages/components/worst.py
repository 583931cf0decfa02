"""Where a step lost likelihood: its groups and tokens, from the worst on, each one click from its group."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from pages.components import data, nav, thinned, url
from pages.components.data import Run
from pages.components.group_list import OUTCOMES
from pages.components.rank_table import Column, rank_table
from pages.components.text import counted, escape, percent, token_text
from storage.schema import GROUPS

GROUPS_SHOWN, TOKENS_SHOWN = 12, 20
GROUP_COLUMNS = (
    Column(name="group_index", title="#", kind="whole", means=f"{GROUPS.column('group_index').means.capitalize()}."),
    Column(name="prompt", title="Prompt", kind="code", means="The prompt as the model saw it."),
    Column(name="delta_correct", title="Δ correct", kind="balance", decimals=3, means=f"{GROUPS.column('delta_correct').means.capitalize()}, in nats/token."),
    Column(name="delta_wrong", title="Δ wrong", kind="signed", decimals=3, leaves=440, means="The same over tokens of its wrong rollouts, in nats/token."),
    Column(name="right", title="Correct", kind="share", decimals=0, leaves=440, means="Share of the group's rollouts that are correct."),
    Column(name="chip", title="Outcome", kind="chip", leaves=440, means="Whether the group's rollouts were right, wrong, or both."),
)
TOKEN_COLUMNS = (
    Column(name="piece", title="Token", kind="code", means="The token's text."),
    Column(name="logp_delta", title="Δ log-prob", kind="balance", decimals=2, means="Log-prob after the step's last update minus before its first, in nats."),
    Column(name="moved", title="Probability", kind="phrase", leaves=440, means="Probability of the token before and after the step's updates."),
    Column(name="position", title="Position", kind="whole", means="Position of the token in its completion, from 0."),
    Column(
        name="place",
        title="Where",
        kind="phrase",
        means="The group it was sampled in, and the rollout of that group, both from 0; how many more of its rollouts have lost the same here.",
    ),
)


def worst_groups(run: Run, step: int) -> None:
    """The step's groups whose correct rollouts lost most; a click opens the group."""
    groups = data.groups(run, step)
    known = groups[groups["delta_correct"].notna()].sort_values("delta_correct")
    st.markdown("**Groups that lost most**", help="By the mean change of log-prob over the tokens of the group's correct rollouts.")
    if known.empty:
        st.caption("No group has a correct rollout that was scored again after the updates.")
        return
    shown = known.head(GROUPS_SHOWN).assign(right=known["correct"] / known["size"], chip=[OUTCOMES[outcome] for outcome in known.head(GROUPS_SHOWN)["outcome"]])
    ids = shown["group_index"].tolist()
    hrefs = [url.link("group", run=run.run_id, step=step, group=index, quantity="delta") for index in ids]
    clicked = rank_table(shown, GROUP_COLUMNS, key="likelihood.groups", label=f"Groups of step {step} that lost most", ids=ids, hrefs=hrefs)
    falling = int((known["delta_correct"] < 0).sum())
    st.caption(escape(f"{falling} of {counted(len(known), 'group')} with correct rollouts lost likelihood in this step ({percent(falling / len(known))})."))
    if clicked is not None:
        nav.goto(nav.GROUP, run=run.run_id, step=step, group=clicked, quantity="delta")


def worst_tokens(run: Run, step: int) -> None:
    """The tokens of correct rollouts that lost most; a click opens the rollout in its group."""
    st.markdown("**Tokens that lost most**", help="Tokens of correct rollouts, by the change of their log-prob over the step's updates.")
    tokens = data.worst_tokens(run, step, TOKENS_SHOWN)
    note = thinned.step_note(run, step, len(data.groups(run, step)))
    if tokens.empty and note:
        st.caption(escape(note))
        return
    if tokens.empty:
        st.caption("No token of a correct rollout became less likely, or none was scored again after the updates.")
        return
    shown = tokens.assign(
        piece=_pieces(run, tokens["token_id"]),
        moved=[f"{percent(np.exp(row.logp_before))} → {percent(np.exp(row.logp_before + row.logp_delta))}" for row in tokens.itertuples()],
        place=[_place(row) for row in tokens.itertuples()],
    )
    ids = [f"{row.group_index}.{row.rollout_index}.{row.position}" for row in tokens.itertuples()]
    hrefs = [url.link("group", run=run.run_id, step=step, group=row.group_index, rollout=row.rollout_index, quantity="delta") for row in tokens.itertuples()]
    clicked = rank_table(shown, TOKEN_COLUMNS, key="likelihood.tokens", label=f"Tokens of step {step} that lost most", ids=ids, hrefs=hrefs)
    st.caption(f"The worst {len(tokens)}; a row opens its rollout with tokens coloured by Δ log-prob.{f' {escape(note)}' if note else ''}")
    if clicked is not None:
        group, rollout, _ = clicked.split(".")
        nav.goto(nav.GROUP, run=run.run_id, step=step, group=group, rollout=rollout, quantity="delta")


def _place(row) -> str:
    """`group 3, rollout 0`, or `group 3, rollout 0 + 7 alike`."""
    return f"group {row.group_index}, rollout {row.rollout_index}" + (f" + {row.alike - 1} alike" if row.alike > 1 else "")


def _pieces(run: Run, token_ids: pd.Series) -> list[str]:
    pieces = data.vocabulary(run)
    return [token_text(pieces, token) for token in token_ids]
