"""A schedule as it is stored: one JSON document, which is an entry of its revision's content.

It holds every text as it was sent, whatever these mean; `rules/spec.py` says whether they mean anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any, Self

from blobhub_server.blobtypes import json_text

MAX_INPUT_BYTES = 64 << 10
"""How large all inputs of a schedule may be together, as JSON. Schedules that are due together are read in one go."""
DEFAULT_CATCH_UP_WINDOW = timedelta(hours=1)
_MICROSECOND = timedelta(microseconds=1)


class Repeat(StrEnum):
    """How often a schedule fires."""

    ONE_TIME = "one_time"
    RECURRING_CRON = "recurring_cron"


class CatchUp(StrEnum):
    """What becomes of times that passed while no server ran."""

    SKIP = "skip"
    LAST = "last"
    ALL = "all"


class Overlap(StrEnum):
    """What becomes of a time that comes while an execution of the same schedule runs."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE_ONE = "queue_one"
    STOP_RUNNING = "stop_running"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A value for an input of the definition: JSON text, exactly as sent, or, unless `sent_as_text`, written by us."""

    alias: str
    text: str
    sent_as_text: bool

    @property
    def value(self) -> Any:
        """The JSON value that the text says."""
        return json_text.load(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a schedule invokes.

    `revision` is the reference as it was sent, `blob_id` what it led to when the schedule was saved, and `revision_id` the
    revision that it pins; empty when it follows the default.
    """

    revision: str = ""
    session: str = ""
    definition: str = ""
    blob_id: str = ""
    revision_id: str = ""

    @property
    def reference(self) -> str:
        """The revision to invoke, by ids, so that it does not matter if the blob was renamed."""
        return self.revision_id or f"{self.blob_id}@default"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleDocument:
    """What a schedule is told, and who saved it: `actor_id`. What is not set is empty or None."""

    repeat: Repeat | None = None
    invocation_time: str = ""
    cron_expression: str = ""
    timezone: str = ""
    start_date: str = ""
    end_date: str = ""
    description: str = ""
    invocation_target: Target = Target()
    input_data: tuple[Input, ...] = ()
    catch_up: CatchUp | None = None
    catch_up_window: timedelta | None = None
    overlap: Overlap | None = None
    jitter: timedelta | None = None
    actor_id: str = ""

    @property
    def catch_up_policy(self) -> CatchUp:
        """The policy, or its default."""
        return self.catch_up or CatchUp.LAST

    @property
    def window(self) -> timedelta:
        """How late a time may be caught up, or its default."""
        return DEFAULT_CATCH_UP_WINDOW if self.catch_up_window is None else self.catch_up_window

    @property
    def overlap_policy(self) -> Overlap:
        """The policy, or its default."""
        return self.overlap or Overlap.ALLOW

    def changed(self, other: ScheduleDocument, names: set[str]) -> Self:
        """This document with some fields of another one."""
        return replace(self, **{name: getattr(other, name) for name in names})

    def write(self) -> str:
        """The document as JSON text: the same document is the same text."""
        made = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        kept = {name: value for name, value in made.items() if value not in (None, "", [])}
        return json.dumps({"type": "schedule", "version": "1", **kept}, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def read(cls, text: str) -> Self:
        """The document that `write` wrote. Raises ValueError, KeyError or TypeError for what it did not."""
        found = json.loads(text)
        if (found.pop("type"), found.pop("version")) != ("schedule", "1"):
            raise ValueError("not a schedule of version 1")
        for name, make in _MAKERS.items():
            if name in found:
                found[name] = make(found[name])
        return cls(**found)


def _plain(value: Any) -> Any:
    """A field as JSON."""
    if isinstance(value, timedelta):
        return value // _MICROSECOND
    if isinstance(value, Input | Target):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


_MAKERS: dict[str, Callable[[Any], Any]] = {
    "repeat": Repeat,
    "invocation_target": lambda found: Target(**found),
    "input_data": lambda found: tuple(Input(**item) for item in found),
    "catch_up": CatchUp,
    "catch_up_window": lambda found: found * _MICROSECOND,
    "overlap": Overlap,
    "jitter": lambda found: found * _MICROSECOND,
}
"""How a field is made from its JSON, where it is not a text."""
