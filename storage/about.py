"""What an export says about its run beside the tables: run.json of a Parquet folder, table run_info of a .duckdb file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from storage.errors import ExportRefused, NewerStore
from storage.schema import SCHEMA_VERSION

RUN_FILE = "run.json"
LARGEST_BYTES = 16 << 20
"""Of the text about a run: a config with a chat template has a few thousand."""

_STEERING = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Characters that steer a terminal; no name or setting has one, but an export is anyone's file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Which run an export holds: `config` as in config.json, `status` as in status.json without its process, `fork` as in fork.json.

    `retention` are the lines of retention.jsonl: whose tokens were thinned. `files` are the checksums of the Parquet files beside run.json.
    """

    run_id: str
    name: str = ""
    config: dict[str, object] | None = None
    status: dict[str, object] | None = None
    fork: dict[str, object] | None = None
    retention: list[dict[str, object]] | None = None
    schema_version: int = SCHEMA_VERSION
    precision: str = "rounded"
    files: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        return _ABOUT.dump_json(self, indent=1).decode() + "\n"


_ABOUT = TypeAdapter(About)


def parse_json(place: Path, text: bytes | str) -> object:
    """What a JSON text of an export says; `place` is named in errors. Raises ExportRefused."""
    if len(text) > LARGEST_BYTES:
        raise ExportRefused(f"{place} has {len(text)} bytes of facts about its run, which no export has; export the run again")
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ExportRefused(f"{place} holds something that is no JSON ({' '.join(str(error).split())[:200]}); export the run again") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def about_from(place: Path, content: object) -> About:
    """An About from what an export says. Raises ExportRefused and NewerStore."""
    version = content.get("schema_version") if isinstance(content, Mapping) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:  # before anything else: what a newer one says may look different
        raise NewerStore(f"{place} was exported with store version {version}, but this Groupscope reads up to {SCHEMA_VERSION}; update Groupscope to import it")
    try:
        about = _ABOUT.validate_json(json.dumps(content), strict=True)  # strict takes a mapping for a dataclass only from JSON
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"])) or "it"
        raise ExportRefused(f"{place} does not describe a run ({where}: {wrong['msg'].lower()}); export the run again") from None
    for name in ("name", "config", "status", "fork", "retention"):
        if _steers(getattr(about, name)):
            raise ExportRefused(f"{place} has control characters in the run's {name}, which no export has; it is not to be trusted")
    return about


def _steers(value: object) -> bool:
    if isinstance(value, dict):
        return any(_steers(key) or _steers(one) for key, one in value.items())
    if isinstance(value, list):
        return any(map(_steers, value))
    return isinstance(value, str) and _STEERING.search(value) is not None
