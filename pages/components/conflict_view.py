"""Conflict tokens in words, curves, tables and text: how many, which, where, which way, and what GTPO's weights would make of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from grpo_core.measures.conflicts import TokenTotals, by_token, conflicts, gtpo_weights
from grpo_core.measures.opposition import Opposition, opposition
from pages.components import data, plots, series, thinned, url
from pages.components.cards import Card, Line, Panel
from pages.components.data import Run
from pages.components.group_view import TOKENS_AT_ONCE, parts
from pages.components.rank_table import Column, rank_table
from pages.components.step_groups import neighbours
from pages.components.summary import WINDOW
from pages.components.text import counted, escape, fixed, listed, percent, token_text
from pages.components.token_strip import QUANTITIES, Marked, Quantity, strip_data, token_strip, token_traces
from storage.queries import conflicts as conflict_queries

MEANS = (
    "A conflict token stands at the same place of a rollout that is pushed up and of one of the same group that is pushed down, so that the two "
    "updates pull at the same token (GTPO, arXiv:2508.03772). Pushed tokens are those of rollouts with an advantage other than 0, in groups "
    "with advantages of both signs."
)
BALANCED = 0.1
"""Shares of pushed-up and pushed-down conflicts that differ by less than this are called balanced."""
LONG = 80
"""Above so many tokens on average, every rollout gets the full width."""
CARDS = (
    Card(
        key="conflict.share",
        title="Conflicts among the pushed tokens",
        height=300,
        means="Head run: from a rollout's first token on without a gap. Tail run: up to its last token, counted from the end. Only these two are GTPO's. "
        "Middle: same token, same place, outside both. Identical beginning: the text before is the same too, so both pushes meet in one and the same "
        "conditional distribution; it is part of the head run. A token can be in both runs.",
        panels=(
            Panel(
                title="Share of pushed tokens",
                unit="share",
                zero=True,
                lines=(
                    Line(column="share_conflict_head", label="Head", colour="c3"),
                    Line(column="share_conflict_tail", label="Tail", colour="c2"),
                    Line(column="share_conflict_mid", label="Middle", colour="c1", dash="dash"),
                    Line(column="share_conflict_shared", label="Identical", colour="c4", dash="dot"),
                ),
            ),
        ),
    ),
    Card(
        key="conflict.push",
        title="Which way they are pushed",
        height=300,
        means="Above: of all conflict tokens, the share whose group pushes them down on balance, that is whose advantages add up to less than 0. Where the "
        "advantages add up to 0 the pushes cancel and the token counts as neither. Below: the share of the step's groups with advantages of both signs, "
        "the only ones that can hold conflicts.",
        panels=(
            Panel(title="Conflict tokens pushed down", unit="share", zero=True, lines=(Line(column="share_pushed_down", label="Down", colour="c1"),)),
            Panel(title="Groups pushed both ways", unit="share", zero=True, lines=(Line(column="share_divided", label="Groups", colour="c0"),)),
        ),
    ),
)
NET = Quantity(
    key="net",
    label="Net advantage",
    unit="advantage",
    kind="diverging",
    trace="net",
    means="sum of the advantages of the group's rollouts with this token at this place: blue is pushed up on balance, red down; 0 where they cancel",
)
GTPO = Quantity(
    key="gtpo",
    label="GTPO weight",
    unit="× the token's loss",
    kind="weight",
    trace="gtpo",
    scale=4.0,
    means="what GTPO multiplies the token's loss by: 2 in a run of a rollout that is pushed up (4 in both), 0 in one that is pushed down, else 1",
)
STRIP = {quantity.key: quantity for quantity in (NET, QUANTITIES["advantage"], QUANTITIES["delta"], GTPO)}
TOKEN_COLUMNS = (
    Column(name="piece", title="Token", kind="code", means="The token as text."),
    Column(name="count", title="In conflict", kind="whole", means="How many conflict tokens of this step are this token, all kinds."),
    Column(
        name="kinds",
        title="Head · tail · middle",
        kind="phrase",
        means="Of them, those in a rollout's run from its first token, in its run up to its last token (one can be in both), and outside both.",
        leaves=560,
    ),
    Column(
        name="ways", title="Up · down", kind="phrase", means="Of them, those in rollouts with an advantage above 0, and those in rollouts with one below 0."
    ),
    Column(
        name="net", title="Net", kind="balance", means="Sum of the advantages of all of them: below 0 the step pushes the token down where it is contested."
    ),
    Column(name="weighted", title="With GTPO", kind="balance", means="The same sum with each advantage multiplied by its GTPO weight (2, 0, 4 or 1)."),
)
GROUP_COLUMNS = (
    Column(name="group_index", title="#", kind="whole", means="Position of the group in the step, from 0."),
    Column(name="prompt", title="Prompt", kind="code", means="The prompt as the model saw it."),
    Column(name="right", title="Correct", kind="phrase", means="Correct rollouts of the group.", leaves=440),
    Column(name="share", title="In conflict", kind="share", decimals=0, means="Share of the group's tokens that are in conflict (head, tail or middle)."),
    Column(name="shared", title="Identical", kind="share", decimals=0, means="Share of the group's tokens contested after an identical beginning.", leaves=440),
    Column(name="net", title="Net", kind="balance", means="Mean over the group's conflict tokens of their net advantage; most pushed down first."),
)


def sentences(run: Run, steps: pd.DataFrame) -> list[str]:
    """How much is contested lately, which way it is pushed, and how that has changed; or why there is nothing to say."""
    recent = steps.tail(WINDOW)
    totals = {name: float(np.nansum(series.column(recent, f"conflict_{name}"))) for name in ("tokens", "run", "mid", "head", "tail", "shared", "pushed_down")}
    if np.isnan(series.column(recent, "conflict_tokens")).all():
        return ["Conflicts are not available: these steps were recorded before Groupscope counted them. Steps trained from now on will have them."]
    span = f"Over the last {counted(len(recent), 'step')}"
    if not totals["tokens"]:
        return [f"{span} no group had rollouts pushed up and rollouts pushed down, so no token can be in conflict.", _why_undivided(run, recent)]
    contested = totals["run"] + totals["mid"]
    head = (
        f"{span}, {percent(contested / totals['tokens'])} of the pushed tokens are contested: the same token at the same place is pushed up by one "
        "rollout of the group and down by another."
    )
    if not contested:
        return [head]
    down = totals["pushed_down"] / contested
    direction = "mostly down" if down > 0.5 + BALANCED / 2 else "rarely down" if down < BALANCED else "down in part"
    return [
        head,
        f"On balance the groups push contested tokens {direction}: {percent(down)} of them down, the others up or not at all.",
        f"{percent(totals['head'] / totals['tokens'])} of the pushed tokens are in head runs, {percent(totals['tail'] / totals['tokens'])} in tail runs, "
        f"{percent(totals['mid'] / totals['tokens'])} in the middle; {percent(totals['shared'] / totals['tokens'])} follow an identical beginning.",
    ]


@st.cache_data(show_spinner=False, max_entries=32)
def _totals(path, run_id: str, attempt: int, taken: int, step: int) -> TokenTotals:
    pushed = conflict_queries.pushed_rollouts(data.store(), run_id, step)
    length, ids = pushed["length"].to_numpy("i8"), _together(pushed["token_ids"])
    advantage = pushed["advantage"].fillna(0).to_numpy("f8")
    found = conflicts(ids, length, pushed["group_index"].to_numpy("i8"), advantage)
    return by_token(found, ids, np.repeat(advantage, length))


@st.cache_data(show_spinner=False, max_entries=64)
def _positions(path, run_id: str, attempt: int, step: int) -> pd.DataFrame:
    return conflict_queries.conflict_positions(data.store(), run_id, step)


def positions(run: Run, step: int) -> None:
    """Where in the completions the step's conflicts stand."""
    st.markdown(
        "**By token position**",
        help="Share of all completion tokens at a position that are in conflict (head, tail or middle). Tokens that nothing pushes count too.",
    )
    found = _positions(data.root(), run.run_id, run.status.attempt, step)
    if found.empty:
        st.caption("Not available: this step was recorded before conflicts were counted by position.")
        return
    if not found["conflicts"].any():
        st.caption("No token at any position of this step is in conflict.")
        return
    share = (found["conflicts"] / found["tokens"]).to_numpy("f8")
    where = [f"{a}" if a == b else f"{a} to {b}" for a, b in zip(found["first"], found["last"], strict=True)]
    shown = [
        f"position {place}: {percent(value)} of {counted(int(n), 'token')} in conflict" for place, value, n in zip(where, share, found["tokens"], strict=True)
    ]
    plots.draw(
        plots.position_bars(found["first"].to_numpy(), found["last"].to_numpy(), share, shown),
        key="plot.conflict.position",
        alt=f"Share of tokens in conflict by position at step {step}.",
    )


def tokens_table(run: Run, step: int, groups: int) -> None:
    """Which tokens the step contests, of so many groups."""
    totals = _totals(data.root(), run.run_id, run.status.attempt, data.taken(run), step)
    st.markdown("**Which tokens**", help=f"Tokens in conflict at step {step}, the most frequent first. {MEANS}")
    if note := thinned.step_note(run, step, groups):
        st.caption(escape(note))
    if not len(totals.token):
        if len(data.thinned(run, step)) < groups:
            st.caption("No token of the other groups is in conflict." if note else "No token of this step is in conflict.")
        return
    pieces = data.vocabulary(run)
    rows = pd.DataFrame({name: getattr(totals, name) for name in ("token", "count", "net", "weighted")})
    rows["kinds"] = [f"{head} · {tail} · {mid}" for head, tail, mid in zip(totals.head, totals.tail, totals.mid, strict=True)]
    rows["ways"] = [f"{up} · {down}" for up, down in zip(totals.up, totals.down, strict=True)]
    rows.insert(0, "piece", [token_text(pieces, token) for token in rows["token"]])
    rank_table(rows, TOKEN_COLUMNS, key="conflict.tokens", label=f"Tokens in conflict at step {step}", ids=rows["token"].tolist())


def contested_groups(groups: pd.DataFrame) -> pd.DataFrame:
    """The step's groups that hold conflicts, the most pushed down first, with the columns of GROUP_COLUMNS."""
    count = groups["conflict_run"].fillna(0) + groups["conflict_mid"].fillna(0)
    rows = groups.assign(
        share=count / groups["tokens"],
        shared=groups["conflict_shared"] / groups["tokens"],
        net=groups["conflict_net"],
        right=[f"{correct} of {size}" for correct, size in zip(groups["correct"], groups["size"], strict=True)],
    )
    return rows[count > 0].sort_values("net", kind="stable")


def groups_table(run: Run, step: int, rows: pd.DataFrame, of: int, chosen: int | None) -> None:
    """The contested groups; a click writes the group into the address."""
    st.markdown("**In which groups**", help="Groups of the step that hold conflicts. A click shows the group below.")
    if rows.empty:
        st.caption(f"None of the {counted(of, 'group')} of this step holds conflicts: no group was pushed both ways, or nothing is shared.")
        return
    ids = rows["group_index"].tolist()
    hrefs = [url.link("conflicts", run=run.run_id, step=step, group=group) for group in ids]
    rank_table(
        rows, GROUP_COLUMNS, key="conflict.groups", label=f"Groups with conflicts at step {step}", ids=ids, hrefs=hrefs, chosen=chosen,
        on_row=lambda group: url.put(step=step, group=group),
    )  # fmt: skip
    if len(rows) < of:
        st.caption(f"{of - len(rows)} of {counted(of, 'group')} hold none.")


def marked(rollouts: pd.DataFrame) -> Marked:
    """Conflicts and GTPO weights of every token of a group, for the token strip."""
    length = rollouts["length"].to_numpy("i8")
    advantage = rollouts["advantage"].fillna(0).to_numpy("f8")
    found = conflicts(_together(rollouts["token_ids"]), length, np.zeros(len(length), "i8"), advantage)
    contested = found.run | found.mid
    return Marked(
        quantities=STRIP,
        traces={"net": found.net, "gtpo": gtpo_weights(found, np.repeat(advantage > 0, length))},
        told={"net advantage": "net", "GTPO weight": "gtpo"},
        marks=(found.head + 2 * found.tail + 4 * found.mid + 8 * found.shared).astype("u1"),
        facts=[[(str(int(part.sum())), "in conflict")] for part in np.split(contested, np.cumsum(length)[:-1])],
        beside="gtpo",
    )


def group_sentences(rollouts: pd.DataFrame, shown: Marked) -> str:
    """What the group's pushes come to on its contested tokens, and what GTPO would do."""
    contested, net, weight = (shown.marks & 7) > 0, shown.traces["net"], shown.traces["gtpo"]
    if not contested.any():
        return "No token of this group is in conflict, so GTPO would weigh every token 1."
    n = int(contested.sum())
    ways = [
        f"{percent(float(np.mean(net[contested] < 0)))} pushed down",
        f"{percent(float(np.mean(net[contested] > 0)))} up",
        f"{percent(float(np.mean(net[contested] == 0)))} cancel",
    ]
    kept, out = int((weight == 2).sum()), int((weight == 0).sum())
    quadrupled = int((weight == 4).sum())
    would = [f"weigh {counted(kept, 'token')} of pushed-up rollouts twice"]
    would += [f"{quadrupled} in both runs four times"] if quadrupled else []
    would.append(f"leave out {out} of pushed-down ones")
    return f"{counted(n, 'token')} of {len(contested)} in conflict: on balance {listed(ways)}. GTPO would {listed(would)}; middle conflicts it leaves alone."


def strip(run: Run, rollouts: pd.DataFrame, steps: pd.DataFrame, step: int, group: int) -> None:
    """The group's text twice: coloured by what is chosen, and by GTPO's weights."""
    everything = marked(rollouts)
    st.markdown(escape(group_sentences(rollouts, everything)))
    left = [key for key in STRIP if key != GTPO.key and not (key == "delta" and not rollouts["rescored"].any())]
    quantity = url.choice("quantity", left, NET.key)
    changed = url.sync("quantity", "conflict.quantity", quantity, default=NET.key)
    st.segmented_control("Colour tokens by", left, required=True, key="conflict.quantity", on_change=changed, format_func=lambda key: STRIP[key].label)
    first = parts(rollouts["length"].to_numpy(), TOKENS_AT_ONCE // 2)[0][1]
    if first < len(rollouts):
        st.caption(f"The first {first} of {counted(len(rollouts), 'rollout')}; conflicts are counted over all of them.")
    identity = f"{run.run_id} {run.status.attempt} {step} {group} {quantity}"
    long = bool(rollouts["length"].mean() > LONG)
    drawn = strip_data(
        rollouts.iloc[:first], data.vocabulary(run), quantity, identity=identity, chosen=None, stacked=long, marked=_cut(everything, rollouts, first)
    )
    token_strip(drawn, key="conflict.strip", on_rollout=lambda: None, on_move=_ask_move)
    if by := st.session_state.pop("conflict.move", 0):
        target = neighbours(step, steps["step"].to_numpy())[by > 0]
        if target is not None:
            url.put(step=target, group=None)
            st.rerun()


def opposing(rollouts: pd.DataFrame) -> None:
    """Every two rollouts' pushes compared, pushed-up rollouts first."""
    st.markdown(
        "**Rollouts that oppose each other**",
        help="A second view on the same contradiction that does not need tokens to stand at the same place. Every rollout is a vector over token ids, "
        "Σ A·w·(1 − π(token)): how hard it pushes each token's logit, from the prediction error's component at the sampled token. Shown is the cosine of two "
        "such vectors. A proxy: it leaves out the tokens that were not sampled, and the context.",
    )
    order = rollouts["advantage"].fillna(0).to_numpy().argsort(kind="stable")[::-1]
    ranked = rollouts.iloc[order]
    traces = token_traces(ranked)
    found = opposition(_together(ranked["token_ids"]), ranked["length"].to_numpy("i8"), traces["advantages"], traces["weights"], traces["logp_before"])
    st.markdown(escape(opposition_sentence(ranked, found)))
    if np.isnan(found.cosine).all():
        return
    known = ~np.isnan(np.diag(found.cosine))
    labels = [f"{index} {'↑' if a > 0 else '↓'}" for index, a in zip(ranked["rollout_index"], ranked["advantage"], strict=True)]
    shown = [label for label, one in zip(labels, known, strict=True) if one]
    with st.container(width=150 + 62 * max(len(shown), 6)):
        plots.draw(plots.matrix(found.cosine[np.ix_(known, known)], shown), key="plot.conflict.opposition", alt="Cosine of every two rollouts' pushes.")
    if not known.all():
        st.caption(f"{counted(int((~known).sum()), 'rollout')} push nothing (advantage or weight 0) and are left out.")


def opposition_sentence(ranked: pd.DataFrame, found: Opposition) -> str:
    """How much of the push is lost inside the group, and which two rollouts oppose each other most."""
    sign = np.sign(ranked["advantage"].fillna(0).to_numpy())
    against = (sign[:, None] > 0) & (sign[None, :] < 0) & ~np.isnan(found.cosine)
    if not against.any():
        return "Not available: no two rollouts of this group are pushed in opposite directions in the loss, or their log-probs or weights were not recorded."
    cosine = np.where(against, found.cosine, np.nan)
    up, down = np.unravel_index(np.nanargmin(cosine), cosine.shape)
    names = ranked["rollout_index"].to_numpy()
    return (
        f"{percent(found.cancelled)} of the group's push cancels inside it. Mean cosine over the {counted(int(against.sum()), 'pair')} of opposite sign "
        f"{fixed(float(np.nanmean(cosine)), sign=True)}; rollouts {names[up]} (up) and {names[down]} (down) oppose each other most, "
        f"{fixed(float(cosine[up, down]), sign=True)}."
    )


def _why_undivided(run: Run, recent: pd.DataFrame) -> str:
    tied = float(np.nansum(series.column(recent, "groups_tied")) / max(np.nansum(series.column(recent, "groups")), 1))
    if tied == 1:
        return "Every group's rewards are equal, so every advantage is 0."
    return f"{percent(tied)} of the groups have equal rewards; in the others {run.config.method} gives advantages of one sign only."


def _together(lists: pd.Series) -> np.ndarray:
    return np.concatenate([np.asarray(one, "i8") for one in lists]) if len(lists) else np.empty(0, "i8")


def _cut(shown: Marked, rollouts: pd.DataFrame, first: int) -> Marked:
    tokens = int(rollouts["length"].iloc[:first].sum())
    traces = {name: values[:tokens] for name, values in shown.traces.items()}
    return Marked(quantities=shown.quantities, traces=traces, told=shown.told, marks=shown.marks[:tokens], facts=shown.facts[:first], beside=shown.beside)


def _ask_move() -> None:
    st.session_state["conflict.move"] = int(st.session_state["conflict.strip"].move)
