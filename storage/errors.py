"""Errors of the store. Each message is one sentence: the fact, the reason, and what works."""

from __future__ import annotations


class StoreError(ValueError):
    """Something about the store that a person can mend; the message says how."""


class RunNotFound(StoreError):
    """No run of that id is in the store."""


class NewerStore(StoreError):
    """The run was written by a newer Groupscope than this one."""


class SegmentDamaged(StoreError):
    """A segment is missing or unreadable; the other segments are untouched."""


class DiskFull(StoreError):
    """The disk has no room for another segment; everything committed is safe."""


class RunLocked(StoreError):
    """Another process is writing this run."""


class ExportRefused(StoreError):
    """Something that cannot become a run of a store; nothing of it is left behind."""


class QueryRefused(StoreError):
    """A query of a person that may not run or cannot be answered; `place` shows where in its text, if that is known."""

    def __init__(self, sentence: str, place: str = "") -> None:
        super().__init__(sentence)
        self.place = place


class QueryStopped(StoreError):
    """A query that ran out of time or memory, or was cancelled."""
