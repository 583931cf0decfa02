r"""A method's equation in LaTeX, composed from its row: one piece (equation_pieces.py) per name in it; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import Template

from grpo_core.equation_pieces import (
    BASES,
    DROPS,
    GROUP_OBJECTIVES,
    LEVELS,
    NORMALISERS,
    NORMS,
    PENALTIES,
    SAMPLERS,
    SCALES,
    SPREADS,
    SURROGATES,
    VALUES,
    WEIGHTS,
    WHOLES,
    Choice,
)
from grpo_core.method_row import Component, Method, Penalty, Weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """What a method chose for one of the six slots, and what each choice means; `idle` are options that are off by default."""

    title: str
    symbol: str
    means: str
    names: tuple[str, ...]
    explains: tuple[str, ...]
    idle: tuple[str, ...] = ()


def advantage(method: Method) -> str:
    """A_i = …, LaTeX."""
    terms = [_component(c) for c in method.credit]
    return _fill(SPREADS, method.spread, x=_fill(WHOLES, method.whole, x=terms[0] + "".join(f" + {term}" for term in terms[1:])))


def loss(method: Method) -> str:
    """The loss to minimise, LaTeX; penalties whose weight is 0 by default are left out, as training leaves them out."""
    tokens = _normalised(method, _weight_symbols(method.weights) + _surrogate(method, "latex"))
    policy = _fill(GROUP_OBJECTIVES, method.group.name, value=f"{method.group.value:.4g}") if method.group else tokens
    penalties = [rf"\\ &+ {p.coef:g} {_penalty(method, p)}" for p in method.penalties if p.coef > 0]
    minimised = policy.removeprefix("-") if policy.startswith("-") else f"-{policy}"
    return r"\begin{aligned} \mathcal{L}(\theta) = &" + minimised + " ".join(penalties) + r" \end{aligned}"


def equations(method: Method) -> tuple[str, ...]:
    """Advantage and loss, one display each."""
    return advantage(method), loss(method)


def definitions(method: Method) -> tuple[str, ...]:
    """What the symbols in `equations` stand for, each once, LaTeX."""
    slots_read = (("value", VALUES), ("base", BASES), ("norm", NORMS), ("drop", DROPS))
    pieces = [choice.pieces.get(getattr(c, slot)) for slot, choice in slots_read for c in method.credit]
    found = [piece.where for piece in pieces if piece]
    found.append(SPREADS.pieces[method.spread].where if method.spread in SPREADS.pieces else "")
    ratio = LEVELS.pieces.get(method.level)
    found.append(ratio.where if ratio and ratio.latex in " ".join([loss(method), *(_surrogate(method, part) for part in ("where", "score"))]) else "")
    found.append(_surrogate(method, "where"))
    found += [Template(WEIGHTS.pieces[w.name].where).substitute(value=f"{w.value:.4g}") for w in method.weights if w.name in WEIGHTS.pieces]
    if method.group and method.group.name in GROUP_OBJECTIVES.pieces:
        found.append(Template(GROUP_OBJECTIVES.pieces[method.group.name].where).substitute(score=_surrogate(method, "score")))
    found += [PENALTIES.pieces[p.name].where for p in method.penalties if p.coef > 0 and p.name in PENALTIES.pieces]
    return tuple(dict.fromkeys(text for text in found if text))


def defined(method: Method) -> str:
    """The definitions as one display, a line each; empty where there are none."""
    if not definitions(method):
        return ""
    return r"\begin{gathered} " + r" \\[0.7em] ".join(definitions(method)) + r" \end{gathered}"


def slots(method: Method) -> tuple[Slot, ...]:
    """The six slots of the equation as the method fills them."""
    clip = () if method.clip is None else (f"{method.clip[0]:g} below, {method.clip[1]:g} above",)
    group = (f"{method.group.name} {method.group.value:.4g}",) if method.group else ()
    grouped = (_words(GROUP_OBJECTIVES, method.group.name),) if method.group else ()
    words = [line for c in method.credit for line in _component_words(c)]
    by_item = () if method.spread == "rows" else (f"by {method.spread}",)
    return (
        Slot(
            title="credit",
            symbol="A",
            means="How a rollout's reward becomes its advantage: value − baseline, normed, and which rollouts it is kept for.",
            names=(*(_component_name(c) for c in method.credit), *([method.whole] if method.whole != "none" else []), *by_item),
            explains=tuple(dict.fromkeys([*words, _words(WHOLES, method.whole), _words(SPREADS, method.spread)])),
        ),
        Slot(
            title="surrogate",
            symbol="φ",
            means="What each token is pushed by: its advantage and the ratio of its probability now to that when sampled.",
            names=(method.surrogate, f"{method.level} level", *clip, *group),
            explains=(_words(SURROGATES, method.surrogate), _words(LEVELS, method.level), *grouped),
        ),
        Slot(
            title="token weights",
            symbol="W",
            means="What multiplies a token's push, without gradient.",
            names=tuple(f"{w.name} {w.value:.4g}" for w in method.weights),
            explains=tuple(_words(WEIGHTS, w.name) for w in method.weights),
        ),
        Slot(
            title="regularisers",
            symbol="λ · reg",
            means="What is added to the loss, each with its weight.",
            names=tuple(f"{p.name} × {p.coef:g}" for p in method.penalties if p.coef > 0),
            explains=tuple(_words(PENALTIES, p.name) for p in method.penalties),
            idle=tuple(f"{p.name} ({p.knob})" for p in method.penalties if not p.coef > 0),
        ),
        Slot(
            title="normaliser",
            symbol="N",
            means="How the tokens' values become one number.",
            names=(method.normaliser,),
            explains=(_words(NORMALISERS, method.normaliser),),
        ),
        Slot(
            title="data rule",
            symbol="D",
            means="Which sampled groups enter the step.",
            names=(method.sampler,),
            explains=(_words(SAMPLERS, method.sampler),),
        ),
    )


def differences(method: Method, other: Method) -> tuple[str, ...]:
    """Titles of the slots that the two fill differently."""
    return tuple(mine.title for mine, theirs in zip(slots(method), slots(other), strict=True) if mine.names != theirs.names)


def _fill(choice: Choice, name: str, **symbols: str) -> str:
    """The piece of a name with its symbols; a name from outside the package, which has none, stands for itself."""
    if name not in choice.pieces:
        inside = ",\\ ".join(value for value in symbols.values() if value)
        return rf"\operatorname{{{_typeset(name)}}}\left({inside}\right)"
    return Template(choice.pieces[name].latex).substitute(symbols)


def _typeset(name: str) -> str:
    return "".join(r"\_" if letter == "_" else letter for letter in name if letter.isalnum() or letter == "_")


def _words(choice: Choice, name: str) -> str:
    means = choice.pieces[name].means if name in choice.pieces else "registered outside the package"
    return f"{name}: {means}"


def _component(c: Component) -> str:
    value, of = _fill(VALUES, c.value, i="i"), _fill(VALUES, c.value, i="j")
    base = _fill(BASES, c.base, of=of, at=f"{c.at:g}")
    kept = _fill(DROPS, c.drop, x=_fill(SCALES, c.scale, x=_fill(NORMS, c.norm, x=f"{value} - {base}" if base else value, of=of)))
    kept = (VALUES.pieces[c.value].over if c.value in VALUES.pieces else "") + kept
    bare = c.norm == "none" and c.scale == "one" and base
    return kept if c.weight == 1 else rf"{c.weight:g} \left({kept}\right)" if bare else rf"{c.weight:g}\, {kept}"


def _component_name(c: Component) -> str:
    words = [
        c.value, "" if c.base == "zero" else f"− {c.base}" + (f" {c.at:g}" if c.at else ""), "" if c.norm == "none" else f"/ {c.norm}",
        "" if c.scale == "one" else f"({c.scale})", "" if c.drop == "none" else f"({c.drop})",
    ]  # fmt: skip
    return " ".join(filter(None, words)) + ("" if c.weight == 1 else f" × {c.weight:g}")


def _component_words(c: Component) -> tuple[str, ...]:
    return tuple(_words(choice, name) for choice, name in ((VALUES, c.value), (BASES, c.base), (NORMS, c.norm), (SCALES, c.scale), (DROPS, c.drop)))


def _surrogate(method: Method, part: str) -> str:
    """The surrogate's `latex`, `where` or `score` with the method's ratio and bounds."""
    low, high = method.clip or (0.0, 0.0)
    ratio = LEVELS.pieces[method.level].latex if method.level in LEVELS.pieces else r"\rho"
    symbols = dict(ratio=ratio, low=f"{low:g}", high=f"{high:g}", floor=f"{max(1 - low, 0):.6g}", ceiling=f"{1 + high:.6g}")
    if method.surrogate not in SURROGATES.pieces:
        return _fill(SURROGATES, method.surrogate, ratio=ratio, A="A_i") if part == "latex" else ""
    text = Template(getattr(SURROGATES.pieces[method.surrogate], part)).substitute(symbols)
    return text if method.spread == "rows" else text.replace("A_i", "A_{i,t}")


def _weight_symbols(weights: Sequence[Weight]) -> str:
    return "".join(rf"{_fill(WEIGHTS, w.name, value=f'{w.value:.4g}')}\, " for w in weights)


def _normalised(method: Method, x: str) -> str:
    return _fill(NORMALISERS, method.normaliser, x=x)


def _penalty(method: Method, penalty: Penalty) -> str:
    piece = PENALTIES.pieces.get(penalty.name)
    inner = _fill(PENALTIES, penalty.name)
    return inner if piece and not piece.averaged else _normalised(method, inner)
