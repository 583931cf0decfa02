"""Words and numbers as people read them. `escape` is the only way text from outside may enter Markdown."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>:~$&=^])")
_BLANKS = re.compile(r"[^\S\u00a0]+")  # a no-break space stays: it keeps a number with its unit
MINUS = "−"
UNKNOWN = "not available"


def escape(text: str) -> str:
    """`text` as literal Markdown on one line: every character that could be read as markup gets a backslash."""
    return _MARKUP.sub(r"\\\1", _BLANKS.sub(" ", text).strip())


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """`value` to `digits` significant digits with a true minus; a dash where it is missing."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if -4 <= magnitude < 6:
        text = f"{value:+.{max(digits - 1 - magnitude, 0)}f}" if sign else f"{value:.{max(digits - 1 - magnitude, 0)}f}"
    else:
        text = f"{value:+.{digits - 1}e}" if sign else f"{value:.{digits - 1}e}"
    return text.replace("-", MINUS)


def fixed(value: float | None, decimals: int = 2, *, sign: bool = False) -> str:
    """`value` with `decimals` places and a true minus; a dash where it is missing."""
    if value is None or math.isnan(value):
        return "–"
    return (f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}").replace("-", MINUS)


def percent(share: float | None) -> str:
    """A share from 0 to 1 as a whole percentage; a dash where it is missing."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.0f}\u00a0%"


def duration(seconds: float | None) -> str:
    """How long, in the two largest units: `45 s`, `2 min 5 s`, `3 h 20 min`, `2 d 4 h`."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    whole = max(round(seconds), 0)
    for size, unit, smaller, small_unit in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit} {rest} {small_unit}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def about(seconds: float | None) -> str:
    """A rough duration for what is left: `about 20 s`, `about 3 min`, `about 2 h`."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 60:
        return f"about {max(10 * round(seconds / 10), 5)} s"
    if seconds < 5_400:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.0f} h" if seconds < 172_800 else f"about {seconds / 86_400:.0f} d"


def ago(moment: float | None, now: float | None = None) -> str:
    """How long ago a time (s since 1970) was: `just now`, `40 s ago`, `3 h ago`."""
    if moment is None or math.isnan(moment):
        return UNKNOWN
    seconds = (time.time() if now is None else now) - moment
    if seconds < 2:
        return "just now"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def clock(moment: float | None) -> str:
    """A time (s since 1970) in this machine's zone: `2026-11-22 10:45`."""
    if moment is None or math.isnan(moment):
        return UNKNOWN
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def counted(n: int, one: str, many: str = "") -> str:
    """`1 group`, `3 groups`."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def listed(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def token_text(pieces: Sequence[str], token: int) -> str:
    """The text of a token id, or the id where the vocabulary does not have it."""
    return pieces[token] if 0 <= token < len(pieces) else f"⟨{token}⟩"
