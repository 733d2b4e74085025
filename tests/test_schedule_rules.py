"""What a schedule's document says: its times within their bounds, its jitter, and the inputs of a firing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from blobhub_server.blobtypes.expressions import ExpressionError
from blobhub_server.scheduler.errors import InvalidSchedule
from blobhub_server.scheduler.rules.document import CatchUp, Input, Overlap, Repeat, ScheduleDocument, Target
from blobhub_server.scheduler.rules.template import FiringContext, render
from blobhub_server.scheduler.rules.timing import Timing, due_time
from hypothesis import given
from hypothesis import strategies as st

HOURLY = ScheduleDocument(repeat=Repeat.RECURRING_CRON, cron_expression="0 * * * ? *", timezone="UTC")
ONCE = ScheduleDocument(repeat=Repeat.ONE_TIME, invocation_time="2027-03-28T02:30", timezone="Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_recurring_schedule_has_the_times_from_its_start_to_its_end_and_those_too() -> None:
    bounds = ScheduleDocument(start_date="2027-01-01T10:00Z", end_date="2027-01-01T13:00+01:00")
    document = HOURLY.changed(bounds, {"start_date", "end_date"})
    timing = Timing.read(document)
    every = [at(f"2027-01-01T{hour}:00") for hour in (10, 11, 12)]
    assert list(timing.between(at("2026-01-01T00:00"), at("2028-01-01T00:00"))) == every
    assert timing.next_after(at("2020-01-01T00:00")) == every[0]
    assert timing.next_after(every[0]) == every[1]
    assert timing.next_after(every[2]) is None
    assert timing.last_until(every[0] - timedelta(seconds=1)) is None
    assert timing.last_until(every[0]) == every[0]
    assert timing.last_until(at("2030-01-01T00:00")) == every[2]


def test_a_time_in_the_gap_is_the_first_instant_after_it() -> None:
    timing = Timing.read(ONCE)
    assert timing.next_after(at("2020-01-01T00:00")) == at("2027-03-28T01:00")
    assert timing.next_after(at("2027-03-28T01:00")) is None
    assert timing.last_until(at("2027-03-28T01:00")) == at("2027-03-28T01:00")
    assert timing.occurrence(at("2027-03-28T01:00")).offset_changes


def test_one_time_outside_its_bounds_is_none() -> None:
    timing = Timing.read(ONCE.changed(ScheduleDocument(end_date="2027-03-01"), {"end_date"}))
    assert timing.next_after(at("2020-01-01T00:00")) is None
    assert timing.last_until(at("2030-01-01T00:00")) is None


def test_all_that_is_wrong_is_told_at_once() -> None:
    wrong = ScheduleDocument(repeat=Repeat.ONE_TIME, cron_expression="x", timezone="x", start_date="x", end_date="x")
    with pytest.raises(InvalidSchedule) as raised:
        Timing.read(wrong)
    fields = {violation.field for violation in raised.value.violations}
    assert fields == {
        f"spec.{name}" for name in ("invocation_time", "cron_expression", "timezone", "start_date", "end_date")
    }


@given(seconds=st.integers(0, 3600), minute=st.integers(0, 1 << 20))
def test_jitter_puts_off_by_a_part_of_it_that_is_the_same_for_the_same_time(seconds: int, minute: int) -> None:
    nominal, jitter = at("2027-01-01T00:00") + timedelta(minutes=minute), timedelta(seconds=seconds)
    due = due_time("a schedule", nominal, jitter)
    assert nominal <= due <= nominal + jitter
    assert due == due_time("a schedule", nominal, jitter)
    assert due_time("a schedule", nominal, None) == nominal


def test_jitter_spreads_schedules_of_one_time() -> None:
    nominal, jitter = at("2027-01-01T00:00"), timedelta(minutes=10)
    found = [due_time(f"schedule {number}", nominal, jitter) - nominal for number in range(1000)]
    tenths = {offset // timedelta(minutes=1) for offset in found}
    assert tenths == set(range(10))


CONTEXT = FiringContext(
    nominal_time=at("2027-01-31T08:00"),
    previous_time=at("2027-01-30T08:00:00.5"),
    schedule_id="01890000-0000-7000-8000-000000000000",
    schedule_alias="report",
    timezone="Europe/Berlin",
)


def rendered(text: str, context: FiringContext = CONTEXT) -> Any:
    """The input that a JSON text makes."""
    return render(ScheduleDocument(input_data=(Input(alias="given", text=text, sent_as_text=True),)), context)["given"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"type": "template", "template": "{{ nominal_time }}"}', "2027-01-31T08:00:00Z"),
        ('{"type": "template", "template": "{{ schedule }}"}', CONTEXT.names()["schedule"]),
        ('{"type": "template", "template": "{{ len(schedule.alias) }}"}', 6),
        (
            '{"type": "template", "template": "{{ schedule.alias }} since {{ previous_time }}."}',
            "report since 2027-01-30T08:00:00.500000Z.",
        ),
        ('{"type": "template", "template": "nothing to fill in"}', "nothing to fill in"),
        (
            '{"type": "expression", "expression": "[previous_time, nominal_time]"}',
            ["2027-01-30T08:00:00.500000Z", "2027-01-31T08:00:00Z"],
        ),
        ('"{{ nominal_time }}"', "{{ nominal_time }}"),
        ('{"type": "text", "text": "{{ nominal_time }}"}', {"type": "text", "text": "{{ nominal_time }}"}),
        ("[1, 18446744073709551615]", [1, 18446744073709551615]),
    ],
)
def test_templates_are_values_of_the_firing_and_plain_text_is_never_interpreted(text: str, value: Any) -> None:
    assert rendered(text) == value


def test_there_is_no_previous_time_at_first() -> None:
    first = FiringContext(
        nominal_time=CONTEXT.nominal_time, previous_time=None, schedule_id="x", schedule_alias="report", timezone="UTC"
    )
    assert rendered('{"type": "template", "template": "{{ previous_time }}"}', first) is None
    assert rendered('{"type": "expression", "expression": "previous_time or nominal_time"}', first) == "2027-01-31T08:00:00Z"


def test_what_has_no_value_is_an_error() -> None:
    with pytest.raises(ExpressionError):
        rendered('{"type": "template", "template": "{{ schedule.nothing }}"}')


TEXT = st.text(max_size=20)
DOCUMENTS = st.builds(
    ScheduleDocument,
    repeat=st.none() | st.sampled_from(Repeat),
    **dict.fromkeys(("invocation_time", "cron_expression", "timezone", "start_date", "end_date", "description"), TEXT),
    invocation_target=st.builds(
        Target, **dict.fromkeys(("revision", "session", "definition", "blob_id", "revision_id"), TEXT)
    ),
    input_data=st.lists(st.builds(Input, alias=TEXT, text=TEXT, sent_as_text=st.booleans()), max_size=3).map(tuple),
    catch_up=st.none() | st.sampled_from(CatchUp),
    catch_up_window=st.none() | st.timedeltas(timedelta(), timedelta(days=366)),
    overlap=st.none() | st.sampled_from(Overlap),
    jitter=st.none() | st.timedeltas(timedelta(), timedelta(hours=1)),
    actor_id=TEXT,
)


@given(document=DOCUMENTS)
def test_a_document_is_read_as_it_was_written_and_written_in_one_way(document: ScheduleDocument) -> None:
    written = document.write()
    assert ScheduleDocument.read(written) == document
    assert ScheduleDocument.read(written).write() == written
