"""When a cron expression is due: both grammars, zones, and the days on which the offset of a zone changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from blobhub_server.scheduler.timetable import (
    InvalidCron,
    UnknownZone,
    between,
    find_zone,
    last_until,
    next_after,
    occurrence,
    parse_cron,
    preview,
    resolve_local,
)

MINUTE = timedelta(minutes=1)


def at(text: str) -> datetime:
    """An instant, of a text in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def shown(cron: str, zone: str, start: str, end: str) -> list[str]:
    """What a clock in the zone shows, with its offset, whenever the expression is due between two instants."""
    place = find_zone(zone)
    due = between(parse_cron(cron), place, at(start) - MINUTE, at(end))
    return [instant.astimezone(place).isoformat(" ", "minutes") for instant in due]


# zone, cron, from and to in UTC, and what the clock shows
CHANGES = [
    # a fixed time in a gap, in an overlap
    ("Europe/Berlin", "30 2 * * *", "2026-03-28 12:00", "2026-03-29 12:00", ["2026-03-29 03:00+02:00"]),
    ("Europe/Berlin", "30 2 * * *", "2026-10-24 12:00", "2026-10-25 12:00", ["2026-10-25 02:30+02:00"]),
    ("America/New_York", "30 2 * * ? *", "2026-03-08 00:00", "2026-03-08 12:00", ["2026-03-08 03:00-04:00"]),
    ("America/New_York", "30 1 * * ? *", "2026-11-01 00:00", "2026-11-01 12:00", ["2026-11-01 01:30-04:00"]),
    # all minutes of a gap are due at its end, together with what is due then anyway
    (
        "Europe/Berlin",
        "*/15 2,3 * * *",
        "2026-03-29 00:00",
        "2026-03-29 01:20",
        ["2026-03-29 03:00+02:00", "2026-03-29 03:15+02:00"],
    ),
    # half an hour
    ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03 12:00", "2026-10-04 12:00", ["2026-10-04 02:30+11:00"]),
    ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04 12:00", "2026-04-05 12:00", ["2026-04-05 01:45+11:00"]),
    (
        "Australia/Lord_Howe",
        "45 * * * *",
        "2026-04-04 14:30",
        "2026-04-04 16:30",
        ["2026-04-05 01:45+11:00", "2026-04-05 01:45+10:30", "2026-04-05 02:45+10:30"],
    ),
    # a day that there was not
    (
        "Pacific/Apia",
        "0 9 * * *",
        "2011-12-29 12:00",
        "2012-01-01 12:00",
        ["2011-12-29 09:00-10:00", "2011-12-31 00:00+14:00", "2011-12-31 09:00+14:00", "2012-01-01 09:00+14:00"],
    ),
    ("Pacific/Apia", "0 * 30 12 ? 2011", "2011-01-01 00:00", "2012-12-31 00:00", []),
    # real time: nothing in a gap, twice in an overlap
    (
        "Europe/Berlin",
        "30 * * * *",
        "2026-03-29 00:00",
        "2026-03-29 02:00",
        ["2026-03-29 01:30+01:00", "2026-03-29 03:30+02:00"],
    ),
    (
        "Europe/Berlin",
        "0 */2 * * *",
        "2026-10-24 22:00",
        "2026-10-25 03:00",
        ["2026-10-25 00:00+02:00", "2026-10-25 02:00+02:00", "2026-10-25 02:00+01:00", "2026-10-25 04:00+01:00"],
    ),
]


@pytest.mark.parametrize(("zone", "cron", "start", "end", "expected"), CHANGES)
def test_a_change_of_the_offset_is_taken_as_is_said(zone: str, cron: str, start: str, end: str, expected: list[str]) -> None:
    assert shown(cron, zone, start, end) == expected


def test_a_preview_shows_local_times_and_marks_days_on_which_the_offset_changes() -> None:
    zone = find_zone("Europe/Berlin")
    seen = preview(parse_cron("0 9 * * ? *"), zone, at("2026-03-28 12:00"), 2)
    assert [(day.instant, day.local_time.hour, day.utc_offset, day.offset_changes) for day in seen] == [
        (at("2026-03-29 07:00"), 9, timedelta(hours=2), True),
        (at("2026-03-30 07:00"), 9, timedelta(hours=2), False),
    ]
    assert not occurrence(at("2026-03-28 22:59"), zone).offset_changes


def test_nothing_is_due_on_a_day_that_there_never_is_or_in_a_year_that_is_over() -> None:
    zone = find_zone("UTC")
    assert next_after(parse_cron("0 0 30 2 ? *"), zone, at("2026-01-01")) is None
    assert next_after(parse_cron("0 0 * * ? 2025"), zone, at("2026-01-01")) is None
    assert last_until(parse_cron("0 0 * * ? 2027"), zone, at("2026-01-01")) is None
    assert next_after(parse_cron("0 0 * * ? *"), zone, at("2199-12-31")) is None


def test_the_first_and_the_last_instants_that_there_are_can_be_asked_about() -> None:
    cron, zone = parse_cron("0 0 * * *"), find_zone("Pacific/Kiritimati")
    assert next_after(cron, zone, datetime.min.replace(tzinfo=UTC)) == resolve_local(datetime(1970, 1, 1), zone)
    assert last_until(cron, zone, datetime.max.replace(tzinfo=UTC)) == resolve_local(datetime(2199, 12, 31), zone)
    assert next_after(cron, zone, datetime.max.replace(tzinfo=UTC)) is None
    assert last_until(cron, zone, datetime.min.replace(tzinfo=UTC)) is None


def test_a_leap_day_that_is_a_monday_is_found_decades_ahead() -> None:
    fifth_monday_of_february = parse_cron("0 0 ? FEB MON#5 *")
    zone = find_zone("UTC")
    assert next_after(fifth_monday_of_february, zone, at("2016-03-01")) == at("2044-02-29")
    assert last_until(fifth_monday_of_february, zone, at("2044-02-28")) == at("2016-02-29")


def test_the_error_of_an_expression_names_the_field_and_what_is_allowed() -> None:
    with pytest.raises(InvalidCron) as refused:
        parse_cron("0 9 ? * 8 *")
    assert refused.value.message == "day-of-week: 8 is not in 1-7 or SUN-SAT"
    assert (refused.value.field, refused.value.given, refused.value.allowed) == ("day-of-week", "8", "1-7 or SUN-SAT")


def test_an_unknown_zone_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(UnknownZone) as refused:
        find_zone("berlin")
    assert refused.value.nearest == ("Europe/Berlin",)
    assert refused.value.message == "berlin is no time zone of the IANA database: did you mean Europe/Berlin?"
