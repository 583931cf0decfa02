"""The launch form, made from RunConfig: one widget per option, its unit and limits, and what is wrong with it beside it."""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import annotated_types
import streamlit as st
from pydantic import ValidationError

from grpo_core.config import SECTIONS, RunConfig, field_errors
from grpo_core.launch.start import flag
from grpo_core.method_row import Method
from grpo_core.methods import METHODS
from pages.components.text import escape

BASICS = ("method", "name", "task", "model", "steps", "seed")
"""Shown at once; the other options wait in folded sections."""
KNOBS = frozenset().union(*(method.knobs for method in METHODS.values()))
DATASET_ONLY = "For the dataset task: "
WORDS = {
    "lr": "learning rate", "kl": "KL", "llds": "LLDS", "gtpo": "GTPO", "grao": "GRAO", "gepo": "GEPO", "nthr": "NTHR", "lora": "LoRA", "coef": "coefficient",
    "dtype": "number format", "eval": "evaluation",
}  # fmt: skip
"""Parts of option names as people say them."""
SOURCE, WRITTEN = "launch.source", "launch.written"


@dataclass(frozen=True, slots=True)
class Option:
    """One field of RunConfig as the form needs it. `kind` is choice, text, list, whole, decimal or maybe (a decimal or nothing)."""

    name: str
    section: str
    unit: str
    means: str
    limits: str
    default: object
    kind: str
    choices: tuple[str, ...]
    dataset_only: bool

    @property
    def key(self) -> str:
        return f"launch.{self.name}"

    @property
    def label(self) -> str:
        words = " ".join(WORDS.get(word, word) for word in self.name.split("_"))
        title = words[0].upper() + words[1:]
        return f"{title} :gray[{self.unit}]" if self.unit and self.unit not in title.lower() else title

    @property
    def help(self) -> str:
        default = f"Default: {self.default}." if self.default not in ((), "", None) else ""
        return " ".join(filter(None, [self.means, f"{self.limits}." if self.limits else "", default, f"`{flag(self.name)}`"]))


@cache
def options() -> dict[str, Option]:
    """Every option of RunConfig, in its order."""
    return {name: _option(name, field) for name, field in RunConfig.model_fields.items()}


def fill(settings: Mapping[str, object], source: str, change: str) -> None:
    """Put settings into the form, defaults elsewhere; `source` and the text of changes say where they come from, to do it once."""
    for option in options().values():
        st.session_state[option.key] = _held(option, settings)
    st.session_state[SOURCE] = source
    st.session_state[WRITTEN] = {change}


def spell(changes: Mapping[str, object]) -> str:
    """Changed options as text for an address, none as ""; `asked` reads it."""
    return json.dumps(dict(changes), separators=(",", ":")) if changes else ""


def asked(text: str) -> dict[str, object]:
    """The options in such a text that exist and have a value their widget can hold; whether it is allowed is for the form to say."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return {name: found[name] for name in found if name in options() and _holds(options()[name], found[name])} if isinstance(found, dict) else {}


def changed(config: RunConfig, changes: Mapping[str, object]) -> RunConfig | None:
    """The settings with the changes, without knobs that the method then does not read; None where they do not go together."""
    settings = {**config.model_dump(), **changes}
    idle = KNOBS - METHODS[settings["method"]].knobs
    return check({name: value for name, value in settings.items() if name not in idle})[0]


def differing(before: RunConfig, config: RunConfig) -> dict[str, object]:
    """The options of `config` that differ from those `before`, those its method does not read aside."""
    idle = KNOBS - METHODS[config.method].knobs
    return {name: getattr(config, name) for name in RunConfig.model_fields if name not in idle and getattr(config, name) != getattr(before, name)}


def shown(value: object) -> str:
    """A setting as people read it."""
    return f"{value:g}" if isinstance(value, float) else "the method's own" if value is None else str(value)


def change_in_words(config: RunConfig, name: str, new: object) -> str:
    """`lr 0.0008 → 0.0002`; without the old value where the run's method does not read the option; of a list only what goes and what comes."""
    old = getattr(config, name)
    if isinstance(old, tuple):
        gone, come = ([item for item in one if item not in other] for one, other in ((old, new), (new, old)))
        return f"{name} " + ", ".join([*(f"without {item}" for item in gone), *(f"with {item}" for item in come)])
    idle = name in KNOBS and name not in METHODS[config.method].knobs
    return f"{name} {'' if idle else f'{shown(old)} '}→ {shown(new)}"


def filled_from(source: str, change: str) -> bool:
    """Whether the form holds what was last filled in from `source`, edits included, and knows this text of changes. A browser that is an edit
    behind sends an older text, which must not undo the newer edit; an address that says nothing at all keeps the form as it is."""
    known = st.session_state.get(SOURCE) == source and options()["steps"].key in st.session_state
    return known and (change in st.session_state[WRITTEN] or not (source or change))


def edits(settings: Mapping[str, object]) -> dict[str, object]:
    """What the form says otherwise than these settings and the defaults; its text is from now on known to `filled_from`."""
    found = {one.name: st.session_state[one.key] for one in options().values() if st.session_state[one.key] != _held(one, settings)}
    st.session_state[WRITTEN].add(spell(found))
    return found


def settings() -> dict[str, object]:
    """What the form says, as settings for make_config. Options it hides or locks are left out, so their defaults hold."""
    values = {}
    for option in options().values():
        if not hidden(option) and not locked(option):
            value = st.session_state[option.key]
            values[option.name] = tuple(value) if option.kind == "list" else value
    return values


def method() -> Method:
    """The method picked in the form."""
    return METHODS[st.session_state["launch.method"]]


def hidden(option: Option) -> bool:
    """Options of the dataset task have no place in the form of another."""
    return option.dataset_only and st.session_state["launch.task"] != "dataset"


def locked(option: Option) -> bool:
    """Options that the picked method does not read."""
    return option.name in KNOBS and option.name not in method().knobs


def check(values: Mapping[str, object]) -> tuple[RunConfig | None, dict[str, list[str]]]:
    """(config, {}) if the settings work, else (None, {option: sentences}); a rule over several options is put at the first it names."""
    try:
        return RunConfig.model_validate(dict(values)), {}
    except ValidationError as error:
        wrong: dict[str, list[str]] = {}
        for field, sentence in field_errors(error):
            wrong.setdefault(field or _named_first(sentence), []).append(sentence)
        return None, wrong


def basics(wrong: Mapping[str, list[str]]) -> None:
    """The options every run is asked for."""
    _grid([options()[name] for name in BASICS], wrong)


def sections(wrong: Mapping[str, list[str]]) -> None:
    """The other options, folded by section; a section with a mistake is open, one with changes says so."""
    for key, title in SECTIONS.items():
        members = [option for option in options().values() if option.section == key and option.name not in BASICS and not hidden(option)]
        changed = [option.name for option in members if not locked(option) and _value(option) != option.default]
        mistaken = any(option.name in wrong for option in members)
        label = f"{title} :gray[{escape(', '.join(changed))}]" if changed else title
        with st.expander(label, expanded=mistaken or (key == "task" and st.session_state["launch.task"] == "dataset"), key=f"launch.section.{key}.{mistaken}"):
            _grid(members, wrong)


def _grid(members: list[Option], wrong: Mapping[str, list[str]]) -> None:
    grid = st.grid(2, min_column_width=230, gap="small")
    for option in members:
        with grid.cell(), st.container(gap="xxsmall"):
            _widget(option)
            for sentence in wrong.get(option.name, []):
                st.markdown(f":red[:material/error: :small[{escape(sentence)}]]")


def _widget(option: Option) -> None:
    lock = locked(option)
    common = {"key": option.key, "help": option.help, "disabled": lock, "persist_state": "session"}
    if option.name == "method":
        st.selectbox(option.label, list(METHODS), format_func=lambda name: METHODS[name].title, **common)
    elif option.kind == "choice":
        st.selectbox(option.label, option.choices, **common)
    elif option.kind == "list":
        st.multiselect(option.label, st.session_state[option.key], accept_new_options=True, placeholder="type one and press Enter", **common)
    elif option.kind == "whole":
        st.number_input(option.label, step=1, **common)
    elif option.kind == "decimal":
        st.number_input(option.label, step=_stride(option.default), format="%g", **common)
    elif option.kind == "maybe":
        st.number_input(option.label, value=None, step=0.01, format="%g", placeholder=_own_value(option.name, lock), **common)
    else:
        st.text_input(option.label, placeholder=_text_placeholder(option), **common)


def _held(option: Option, settings: Mapping[str, object]) -> object:
    """An option of these settings, or its default, as its widget holds it."""
    value = settings.get(option.name, option.default)
    return list(value) if option.kind == "list" else value


def _holds(option: Option, value: object) -> bool:
    """Whether the option's widget can show the value."""
    if option.kind == "maybe" and value is None:
        return True
    if option.kind in ("decimal", "maybe"):
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if option.kind == "whole":
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
    if option.kind == "list":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    return isinstance(value, str) and (option.kind != "choice" or value in option.choices) and (option.name != "method" or value in METHODS)


def _own_value(name: str, lock: bool) -> str:
    """What an empty knob means: the method's own value, that it has none, or that the method has no such knob."""
    if lock:
        return f"not read by {method().title}"
    own = method().own_values.get(name)
    return "none" if own is None else f"{own:g}, the method's own"


def _text_placeholder(option: Option) -> str:
    return "made from method and task" if option.name == "name" else "empty"


def _value(option: Option) -> object:
    value = st.session_state[option.key]
    return tuple(value) if option.kind == "list" else value


def _stride(default: object) -> float:
    """A step of about a tenth of the default, for the buttons of a number."""
    return float(f"{float(default) / 10:.0e}") if isinstance(default, int | float) and default else 0.1


def _named_first(sentence: str) -> str:
    """The option a rule over several is about: `task=dataset needs data` is about data, `minibatches=3 does not divide` about minibatches."""
    words = sentence.replace("=", " ").replace(":", " ").split()
    named = [word for word in words if word in RunConfig.model_fields]
    if named[:1] == ["task"] and len(named) > 1:
        return next((name for name in named if name not in ("task", "dataset")), "task")
    return named[0] if named else ""


def _option(name: str, field) -> Option:
    extra = field.json_schema_extra
    kind, choices = _kind(field.annotation)
    means = field.description.removeprefix(DATASET_ONLY)
    dataset_only = field.description.startswith(DATASET_ONLY)
    return Option(name, extra["section"], extra["unit"], f"{means[0].upper()}{means[1:]}", _limits(field.metadata), field.default, kind, choices, dataset_only)


def _kind(annotation: object) -> tuple[str, tuple[str, ...]]:
    if typing.get_origin(annotation) is typing.Literal:
        return "choice", typing.get_args(annotation)
    if typing.get_origin(annotation) is tuple:
        return "list", ()
    if isinstance(annotation, types.UnionType):
        return "maybe", ()
    return {int: "whole", float: "decimal", str: "text"}[annotation], ()


def _limits(metadata: list[object]) -> str:
    """Bounds of a number in words: `At least 1, at most 64`."""
    words = {
        annotated_types.Ge: ("at least", "ge"),
        annotated_types.Gt: ("more than", "gt"),
        annotated_types.Le: ("at most", "le"),
        annotated_types.Lt: ("less than", "lt"),
    }
    found = [f"{words[type(bound)][0]} {getattr(bound, words[type(bound)][1]):,}".replace(",", " ") for bound in metadata if type(bound) in words]
    return ", ".join(found).capitalize()
