"""Rows of the user's own files, JSONL, Parquet or what the datasets library loads, and what their cells hold; messages name the place."""

from __future__ import annotations

import difflib
import json
import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from grpo_core.errors import TaskError
from grpo_core.tasks.base import Message


def read_rows(data: str, split: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """(where, columns) of every row of a .jsonl or .parquet file, or of a split of a datasets path. Raises TaskError for what cannot be read."""
    path = Path(data)
    if path.suffix == ".jsonl":
        return _read_jsonl(path)
    if path.suffix == ".parquet":
        return _read_parquet(path)
    if path.is_file():
        raise TaskError(f"{path.name} is neither .jsonl nor .parquet; convert it, or give a datasets path")
    return _read_datasets(data, split)


def _read_jsonl(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path.name} line {number}", _json_object(line, f"{path.name} line {number}")
    except OSError as error:
        raise TaskError(_unreadable(path, error)) from None
    except UnicodeDecodeError as error:
        raise TaskError(f"{path.name} is not UTF-8 text (byte {error.start}: {error.reason}); save it as UTF-8") from None


def _unreadable(path: Path, error: OSError) -> str:
    return f"cannot read {path}: {error.strerror or _first_line(error)}; data takes a .jsonl or .parquet file, or what datasets.load_dataset takes"


def _json_object(line: str, where: str) -> Mapping[str, object]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise TaskError(f"{where} is not JSON: {error.msg} at column {error.colno}; every line must be one JSON object") from None
    if not isinstance(value, dict):
        raise TaskError(f'{where} is not a JSON object but a {type(value).__name__}; write e.g. {{"prompt": "2+2=", "answer": "4"}}')
    return value


def _read_parquet(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    try:
        with path.open("rb") as raw, pq.ParquetFile(raw) as file:
            number = 0
            for batch in file.iter_batches():
                for columns in batch.to_pylist():
                    number += 1
                    yield f"{path.name} row {number}", columns
    except OSError as error:
        raise TaskError(_unreadable(path, error)) from None
    except pa.ArrowException as error:
        raise TaskError(f"{path.name} is not a readable Parquet file: {_first_line(error)}") from None


def _read_datasets(data: str, split: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Rows of `load_dataset(PATH_OR_ID, SUBSET)`, given as `PATH_OR_ID` or `PATH_OR_ID:SUBSET`."""
    from datasets import load_dataset  # half a second, and only this kind of data needs it

    path, _, subset = (data, "", "") if Path(data).exists() else data.partition(":")
    try:
        rows = load_dataset(path, subset or None, split=split)
    except Exception as error:  # loaders, the hub and file readers raise their own kinds, all about this path
        raise TaskError(f"cannot load the dataset {data!r}, split {split!r}: {_first_line(error)}") from error
    for number, columns in enumerate(rows, start=1):
        yield f"{data}[{split}] row {number}", columns


def cell(columns: Mapping[str, object], column: str, where: str, *, option: str = "") -> object:
    """What a row holds in a column, which `option` may name otherwise. Raises TaskError where there is no such column."""
    if column in columns:
        return columns[column]
    near = difflib.get_close_matches(column, [c for c in columns if isinstance(c, str)], n=1)
    remedy = (f"did you mean {option}={near[0]}?" if near else f"set {option}") if option else (f"is {near[0]!r} meant?" if near else "add it")
    raise TaskError(f"{where} has no column {column!r}; its columns are {', '.join(columns) or 'none'}; {remedy}")


def prompt_in(value: object, where: str) -> str | tuple[Message, ...]:
    """A prompt: a text that is not empty, or chat messages. Raises TaskError for anything else."""
    if isinstance(value, str):
        if not value:
            raise TaskError(f"{where} is an empty text; write the prompt there or remove the row")
        return value
    if isinstance(value, Sequence) and value and all(_is_message(m) for m in value):
        return tuple({"role": m["role"], "content": m["content"]} for m in value)
    raise TaskError(f'{where} is neither a text nor chat messages like [{{"role": "user", "content": "…"}}] but {shown(value)}')


def _is_message(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def answer_in(value: object, where: str) -> str:
    """Texts as they are, numbers as text; a whole float as a whole number, because columns with gaps are read as floats. Raises TaskError."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or math.isnan(value):
        raise TaskError(f"{where} is {shown(value)}; an answer must be a text or a number")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def shown(value: object) -> str:
    """A value as a message quotes it: JSON, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
