"""The timetable and a clock that is looked at every minute say the same."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from itertools import islice

import pytest
from blobhub_server.scheduler.timetable import between, find_zone, last_until, next_after, parse_cron, zone_names
from cron_texts import FORTY, random_cron
from scale import sample, scaled
from timetable_oracle import Clock, Expression, due_in_utc
from zone_file import DAY, Zone, read_zone

SECOND = timedelta(seconds=1)


def instant_of(seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def start_of(year: int) -> int:
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp())


@dataclass(frozen=True)
class Window:
    """A change of the offset of a zone, of which others may have the same rule, and a day before and after it."""

    zone: str
    change: int

    @property
    def start(self) -> int:
        return self.change - DAY

    @property
    def end(self) -> int:
        return self.change + DAY

    def __str__(self) -> str:
        return f"{self.zone} {instant_of(self.change):%Y-%m-%d}"


@cache
def zone_of(name: str) -> Zone:
    return read_zone(name)


@lru_cache(maxsize=100)
def expression_of(text: str) -> Expression:
    return Expression(text)


@cache
def groups(first_year: int, last_year: int) -> dict[tuple[object, ...], list[str]]:
    """The names of zones by what happens to their offset in these years."""
    together: dict[tuple[object, ...], list[str]] = {}
    for name in sorted(zone_names()):
        rule = zone_of(name).rule(start_of(first_year), start_of(last_year + 1))
        together.setdefault(rule, []).append(name)
    return together


def windows(first_year: int, last_year: int) -> list[Window]:
    """Every change in these years of every rule."""
    return [
        Window(names[0], change)
        for names in groups(first_year, last_year).values()
        for change in zone_of(names[0]).changes(start_of(first_year), start_of(last_year + 1))
    ]


def shown(window: Window) -> Iterator[tuple[str, object]]:
    """What a sample of windows has to show: each size of a change, and the hour of the day at which it comes."""
    zone = zone_of(window.zone)
    before, after = zone.offset(window.change - 1), zone.offset(window.change)
    yield "size", after - before
    yield "hour", (window.change + before) % DAY // 3600


@cache
def some_windows(first_year: int, last_year: int) -> list[Window]:
    """A sample of the changes in these years, or all of them at full scale. A sample of a sample, as the oracle is slow."""
    return sample(sample(windows(first_year, last_year), shown, seed=first_year), shown, seed=last_year)


def check(window: Window, text: str, clock: Clock) -> None:
    """The timetable is due when the oracle is, and says from anywhere what comes next and what came last."""
    cron, zone = parse_cron(text), find_zone(window.zone)
    due = [instant_of(at) for at in clock.due(expression_of(text))]
    assert list(between(cron, zone, instant_of(window.start) - SECOND, instant_of(window.end) - SECOND)) == due, text
    for at in random.Random(f"{window} {text}").choices(range(window.start, window.end), k=5):
        instant = instant_of(at + 0.5)
        past = bisect(due, instant)
        if past < len(due):
            assert next_after(cron, zone, instant) == due[past], (text, instant)
        if past:
            assert last_until(cron, zone, instant) == due[past - 1], (text, instant)
    for instant in due[:5]:
        assert last_until(cron, zone, instant) == instant


@pytest.mark.parametrize("part", range(20))
def test_the_oracle_agrees_at_every_change_of_every_rule_of_a_zone(part: int) -> None:
    for window in some_windows(2020, 2037)[part::20]:
        clock = Clock(zone_of(window.zone), window.start, window.end)
        for text in FORTY:
            check(window, text, clock)


@pytest.mark.parametrize("part", range(20))
def test_the_oracle_agrees_at_the_changes_of_the_past(part: int) -> None:
    for window in some_windows(1970, 2019)[part::20]:
        clock = Clock(zone_of(window.zone), window.start, window.end)
        for text in random.Random(str(window)).sample(FORTY, 3):
            check(window, text, clock)


@pytest.mark.parametrize("part", range(20))
def test_the_oracle_agrees_on_random_expressions(part: int) -> None:
    dice = random.Random(part)
    for _ in range(scaled(scaled(1000, least=20), least=20)):
        text, start = random_cron(dice), dice.randrange(start_of(1969), start_of(2200))
        cron, utc = parse_cron(text), find_zone("UTC")
        expected = [instant_of(at) for at in islice(due_in_utc(expression_of(text), start, start + 400 * DAY), 20)]
        end = expected[-1] if len(expected) == 20 else instant_of(start + 400 * DAY) - SECOND
        assert list(between(cron, utc, instant_of(start) - SECOND, end)) == expected, (text, start)
        for due in expected:
            assert last_until(cron, utc, due + timedelta(seconds=dice.randrange(60))) == due, (text, start)
        window = dice.choice(some_windows(2020, 2037))
        check(window, text, Clock(zone_of(window.zone), window.start, window.end))


def test_about_ninety_rules_are_those_of_all_names() -> None:
    rules = groups(2020, 2037)
    assert sorted(name for names in rules.values() for name in names) == sorted(zone_names())
    assert 80 < len(rules) < 100 < 500 < len(zone_names())


@pytest.mark.parametrize("part", range(8))
def test_every_zone_has_the_offsets_that_are_read_out_of_its_file(part: int) -> None:
    for name in sorted(zone_names())[part::8]:
        zone = zone_of(name)
        instants = [start_of(year) for year in range(1970, 2200)]
        instants += [at for change in zone.changes(start_of(1970), start_of(2200)) for at in (change - 1, change)]
        for at in instants:
            offset = instant_of(at).astimezone(find_zone(name)).utcoffset()
            assert offset == timedelta(seconds=zone.offset(at)), (name, at)
