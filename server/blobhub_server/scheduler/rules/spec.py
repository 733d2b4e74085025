"""What a schedule may be told: everything that is wrong with it, at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from blobhub_server.blobtypes import json_text
from blobhub_server.errors import InvalidValue, Violation
from blobhub_server.scheduler.errors import InvalidSchedule
from blobhub_server.scheduler.rules import template
from blobhub_server.scheduler.rules.document import MAX_INPUT_BYTES, Repeat, ScheduleDocument
from blobhub_server.scheduler.rules.timing import Timing, read_timing

NEVER, WITHIN = "there is no such time after now", " from start_date to end_date"
_TIMES = {Repeat.ONE_TIME: "invocation_time", Repeat.RECURRING_CRON: "cron_expression"}


def check(document: ScheduleDocument) -> list[Violation]:
    """Everything that is wrong with a schedule, whatever the time is."""
    return [*read_timing(document)[1], *_check_target(document), *_check_inputs(document)]


def require_valid(document: ScheduleDocument, now: datetime) -> Timing:
    """The times of a schedule in which nothing is wrong, and which has some to come. Raises InvalidSchedule."""
    violations = check(document)
    if violations:
        raise InvalidSchedule(violations)
    timing = Timing.read(document)
    if timing.next_after(now) is None:
        raise InvalidSchedule([_never(timing, now)])
    return timing


def _never(timing: Timing, now: datetime) -> Violation:
    """Why there is no time after now."""
    if timing.end is not None and timing.end <= now:
        return Violation("spec.end_date", "has passed")
    if timing.cron is not None:
        bounded = timing.start is not None or timing.end is not None
        return Violation("spec.cron_expression", f"{NEVER}{WITHIN if bounded else ''}")
    assert timing.instant is not None, "it was checked"
    if timing.instant <= now:
        return Violation("spec.invocation_time", "has passed")
    early = timing.start is not None and timing.instant < timing.start
    return Violation("spec.invocation_time", f"is {'before start_date' if early else 'after end_date'}")


def _check_target(document: ScheduleDocument) -> Iterator[Violation]:
    if not document.invocation_target.revision or not document.invocation_target.definition:
        yield Violation("spec.invocation_target", "is required, with a revision and a definition")


def _check_inputs(document: ScheduleDocument) -> Iterator[Violation]:
    counts = Counter(item.alias for item in document.input_data)
    yield from (Violation("spec.input_data", f"has {alias} {count} times") for alias, count in counts.items() if count > 1)
    for place, item in enumerate(document.input_data):
        path = f"spec.input_data[{place}].{'value_json' if item.sent_as_text else 'value'}"
        try:
            value, _ = json_text.parse(path, item.text, MAX_INPUT_BYTES)
        except InvalidValue as error:
            yield from error.violations
            continue
        for key, error_of in template.check(value):
            where = f" (line {error_of.line}, column {error_of.column})" if error_of.line else ""
            yield Violation(f"{path}.{key}", f"{error_of.message}{where}")
    size = sum(len(item.text.encode()) for item in document.input_data)
    if size > MAX_INPUT_BYTES:
        yield Violation("spec.input_data", f"must be at most {MAX_INPUT_BYTES} bytes as JSON in all, not {size}")


def changed(stored: ScheduleDocument, sent: ScheduleDocument, names: set[str]) -> ScheduleDocument:
    """A schedule with the fields of `names` as they were sent.

    Where `repeat` changes, the time that goes with it must be among them, and the other one is cleared. Raises
    InvalidSchedule.
    """
    if "repeat" not in names or sent.repeat is None or sent.repeat is stored.repeat:
        return stored.changed(sent, names)
    own = _TIMES[sent.repeat]
    if own not in names:
        message = f"is needed in the same call to change repeat to {sent.repeat.name}"
        raise InvalidSchedule([Violation(f"spec.{own}", message)])
    (other,) = set(_TIMES.values()) - {own}
    return stored.changed(sent, names | {other})
