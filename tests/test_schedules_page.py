"""The page of schedules is so: each expression on it means what it says, on the days that it names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import flows
import pytest
import schedules
from blobhub.v1 import firing_pb2, schedule_pb2
from blobhub_server.scheduler.rules.document import Input, ScheduleDocument
from blobhub_server.scheduler.rules.template import FiringContext, render
from blobhub_server.scheduler.timetable import (
    InvalidCron,
    between,
    describe,
    find_zone,
    occurrence,
    parse_cron,
    resolve_local,
)
from google.protobuf.json_format import ParseDict
from served import Api

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "schedules.md").read_text()
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


def table(head: str) -> list[list[str]]:
    """The rows of the table whose first row begins so."""
    lines = PAGE.partition(f"\n| {head}")[2].partition("\n\n")[0].split("\n")[2:]
    assert lines, head
    return [[cell.strip().replace("\\|", "|") for cell in line.strip("|").split("|")] for line in lines]


def code(cell: str) -> str:
    """The one text in code style of a cell."""
    (text,) = re.findall("`(.*?)`", cell)
    return str(text)


@dataclass(frozen=True)
class Change:
    """A row of the table of changes: the clock goes from one local time to another one, and what is due on that day."""

    zone: str
    before: datetime
    after: datetime
    cron: str
    due: str

    def __str__(self) -> str:
        return f"{self.zone} {self.after:%Y-%m-%d} {self.cron}"


def changes() -> Iterator[Change]:
    """The rows, each with the zone and times of the last row that has them."""
    above: list[str] = []
    for zone, before, after, cron, due in table("zone | the clock"):
        above = [code(zone), code(before), code(after)] if zone else above
        yield Change(
            zone=above[0],
            before=datetime.fromisoformat(above[1]),
            after=datetime.fromisoformat(above[2]),
            cron=code(cron),
            due=due,
        )


@pytest.mark.parametrize("change", list(changes()), ids=str)
def test_what_the_page_says_of_a_change_of_the_offset_is_so(change: Change) -> None:
    zone = find_zone(change.zone)
    assert any(is_change(instant, change) for instant in instants_shown(change))
    day = change.after.date()
    start, end = (resolve_local(datetime.combine(other, time()), zone) for other in (day - DAY, day + 2 * DAY))
    local = [due.astimezone(zone) for due in between(parse_cron(change.cron), zone, start - SECOND, end)]
    due = [moment for moment in local if moment.date() == day]
    if change.due.endswith(" times"):
        assert f"{len(due)} times" == change.due
    else:
        assert [moment.isoformat(timespec="minutes")[11:] for moment in due] == re.findall("`(.*?)`", change.due)
    assert all(occurrence(moment, zone).offset_changes for moment in due)


def is_change(instant: datetime, change: Change) -> bool:
    """Whether the clock goes at this instant from the one local time to the other."""
    zone = find_zone(change.zone)
    last, first = occurrence(instant - SECOND, zone), occurrence(instant, zone)
    return (last.local_time + SECOND, first.local_time) == (
        change.before,
        change.after,
    ) and last.utc_offset != first.utc_offset


def instants_shown(change: Change) -> Iterator[datetime]:
    """The instants at which a clock in any zone may show the time to which it goes, a quarter of an hour apart."""
    for quarters in range(-4 * 14, 4 * 14 + 1):
        yield (change.after - timedelta(minutes=15 * quarters)).replace(tzinfo=UTC)


@pytest.mark.parametrize(("expression", "words"), table("expression | in words"))
def test_an_expression_of_the_page_reads_in_words_as_it_says(expression: str, words: str) -> None:
    assert describe(parse_cron(code(expression))) == words


@pytest.mark.parametrize(("expression", "message"), table("expression | message"))
def test_what_the_page_says_is_refused_is_refused_in_these_words(expression: str, message: str) -> None:
    with pytest.raises(InvalidCron) as refused:
        parse_cron(code(expression))
    assert refused.value.message == message


def test_words_of_the_page_stand_for_five_fields() -> None:
    for words, fields in re.findall(r"((?:`@\w+`(?: and )?)+)\s\(`([^)]*)`\)", PAGE):
        for word in re.findall("@[a-z]+", words):
            assert parse_cron(word) == parse_cron(fields)


DAYS_OF_FEBRUARY_2026 = {
    ("L in day-of-month", "L * ?"): [28],
    ("L-3", "L-3 * ?"): [25],
    ("15W", "15W * ?"): [16],
    ("LW", "LW * ?"): [27],
    ("L in day-of-week", "? * L"): [7, 14, 21, 28],
    ("6L, FRIL", "? * 6L"): [27],
    ("6L, FRIL", "? * FRIL"): [27],
    ("3#2, TUE#2", "? * 3#2"): [10],
    ("3#2, TUE#2", "? * TUE#2"): [10],
}
"""It ends with a Saturday, and its 15th is a Sunday."""


def test_forms_of_the_page_mean_the_days_that_it_says() -> None:
    assert {row[0].replace("`", "").partition(" (")[0] for row in table("form | day")} == {
        form for form, _ in DAYS_OF_FEBRUARY_2026
    }
    start, end = datetime(2026, 1, 31, 23, tzinfo=UTC), datetime(2026, 2, 28, 23, tzinfo=UTC)
    for (_, days), expected in DAYS_OF_FEBRUARY_2026.items():
        due = between(parse_cron(f"0 0 {days} *"), find_zone("UTC"), start, end)
        assert [instant.day for instant in due] == expected, days


def test_numbers_and_steps_of_the_page_mean_what_it_says() -> None:
    meant = {code(form): parse_cron(f"{code(form)} * * * *").minutes for form, _ in table("form | meaning")}
    assert meant == {
        "*": set(range(60)),
        "5": {5},
        "5-10": {5, 6, 7, 8, 9, 10},
        "*/15": {0, 15, 30, 45},
        "5/15": {5, 20, 35, 50},
        "5-40/15": {5, 20, 35},
    }


@pytest.mark.parametrize("around", ["0 0 1 * ? *", "0 0 ? * 1 *", "0 0 1 * *"])
def test_the_page_has_the_numbers_and_names_of_every_field(around: str) -> None:
    fields = around.split(" ")
    for position, (_, *cells) in enumerate(table("field | six fields")):
        for span in re.findall("`([0-9A-Z]+-[0-9A-Z]{2,})`|`([0-9]-[0-9]+)`", cells[len(fields) == 5]):
            if fields[min(position, len(fields) - 1)] != "?":
                parse_cron(" ".join([*fields[:position], "".join(span), *fields[position + 1 :]]))


BLOCKS = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.S)]
SPECS = [block for block in BLOCKS if "repeat" in block]
(BACKFILL,) = [block for block in BLOCKS if "start_time" in block]


@pytest.mark.either_database
@pytest.mark.parametrize("spec", SPECS, ids=[spec["repeat"] for spec in SPECS])
async def test_a_spec_of_the_page_is_a_schedule(api: Api, spec: dict[str, Any]) -> None:
    await schedules.house(api)
    made = await schedules.create(api, "digest", ParseDict(spec, schedule_pb2.ScheduleSpec()))
    assert made.spec == ParseDict(spec, schedule_pb2.ScheduleSpec())
    assert made.HasField("next_nominal_time")


@pytest.mark.either_database
async def test_the_backfill_of_the_page_fires_what_it_says(api: Api) -> None:
    await schedules.house(api)
    await api.put(flows.steps(1), alias="digest")
    spec = ParseDict(SPECS[0], schedule_pb2.ScheduleSpec())
    spec.ClearField("input_data")
    await schedules.create(api, "digest", spec)
    request = ParseDict(BACKFILL, firing_pb2.BackfillScheduleRequest())
    steps = [step async for step in schedules.firings(api).BackfillSchedule(request)]
    times = [firing.nominal_time.ToJsonString() for step in steps for firing in step.firings]
    assert times == [code(time) for time, _ in table("backfilled")]
    assert not steps[-1].HasField("next_start_time")


INPUTS = [(code(text), code(value)) for text, value in table("input | value")]


@pytest.mark.parametrize(("text", "value"), INPUTS)
def test_an_input_of_the_page_has_the_value_that_it_says(text: str, value: str) -> None:
    context = FiringContext(
        nominal_time=datetime(2027, 1, 31, 8, tzinfo=UTC),
        previous_time=datetime(2027, 1, 30, 8, tzinfo=UTC),
        schedule_id="01890000-0000-7000-8000-000000000000",
        schedule_alias="digest",
        timezone="Europe/Berlin",
    )
    document = ScheduleDocument(input_data=(Input(alias="given", text=text, sent_as_text=True),))
    assert render(document, context) == {"given": json.loads(value)}


def test_the_page_has_specs_and_inputs() -> None:
    assert (len(SPECS), len(INPUTS)) == (2, 5)
