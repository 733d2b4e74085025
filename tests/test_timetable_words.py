"""Cron expressions in words."""

from __future__ import annotations

from random import Random

import pytest
from blobhub_server.scheduler.timetable import Cron, describe, parse_cron
from cron_texts import FORTY, random_cron
from hypothesis import given, settings
from hypothesis import strategies as st
from scale import scaled

WORDS = {
    "* * * * ? *": "every minute",
    "0 * * * *": "at minute 0 of every hour",
    "@hourly": "at minute 0 of every hour",
    "0,30 * * * *": "every 30 minutes",
    "7,37 0-23 * * ? *": "every 30 minutes from minute 7",
    "5/7 * * * ? *": "at every 7th minute from 5 to 54 of every hour",
    "1,2,3,40 * * * *": "at minutes 1 to 3 and 40 of every hour",
    "* 2 * * *": "every minute from 02:00 to 02:59 every day",
    "* 2,5 * * *": "every minute of the hours 2 and 5 every day",
    "*/15 9-17 * * MON-FRI": "every 15 minutes from 09:00 to 17:59 from Monday to Friday",
    "*/10 */4 * * *": "every 10 minutes of every 4th hour",
    "0 */5,3 * * *": "at minute 0 of each of the hours 0, 3, 5, 10, 15 and 20",
    "0 0/2 * * ? *": "at minute 0 of every 2nd hour from 0 to 22 every day",
    "0,5,30 8,12,16 * * *": "at minutes 0, 5 and 30 of the hours 8, 12 and 16 every day",
    "5,10 3,15,22 * * *": "at 03:05, 03:10, 15:05, 15:10, 22:05 and 22:10 every day",
    "0 9 * 6-8 *": "at 09:00 every day from June to August",
    "0 9 * 1,7 *": "at 09:00 every day in January and July",
    "0 9 ? * 1,7 *": "at 09:00 every Saturday and Sunday",
    "0 9 ? * L *": "at 09:00 every Saturday",
    "0 9 * * 6-7": "at 09:00 every Saturday and Sunday",
    "0 9 * * 1-3,5": "at 09:00 every Monday, Tuesday, Wednesday and Friday",
    "0 9 * * 0-7": "at 09:00 every day",
    "0 9 ? FEB 2L *": "at 09:00 on the last Monday of February",
    "0 9 ? * MON#5 *": "at 09:00 on the fifth Monday of every month",
    "0 9 L * ? *": "at 09:00 on the last day of every month",
    "0 9 L-1 * ? *": "at 09:00 1 day before the last day of every month",
    "0 9 22W 2 ? *": "at 09:00 on the weekday nearest to the 22nd of February",
    "0 9 1,2,3,11,12,21,23 * ? *": "at 09:00 on the 1st to 3rd, 11th, 12th, 21st and 23rd of every month",
    "0 9 1/5 * ? *": "at 09:00 on every 5th day from the 1st to the 31st of every month",
    "0 9 1-31 * MON": "at 09:00 every day",
    "0 9 13 * 5": "at 09:00 on the 13th of every month and every Friday",
    "0 9 13 2 5": "at 09:00 on the 13th of February and every Friday in February",
    "0 9 */16 * 1,2": "at 09:00 on the 1st and 17th of every month, if that is a Monday or Tuesday",
    "0 9 * * ? 2026,2028": "at 09:00 every day, in 2026 and 2028",
    "0 9 * * ? 2026/25": "at 09:00 every day, in every 25th year from 2026 to 2176",
    "0 0 30 2 ? *": "at 00:00 on the 30th of February",
}


@pytest.mark.parametrize("text", WORDS)
def test_an_expression_reads_in_words(text: str) -> None:
    assert describe(parse_cron(text)) == WORDS[text]


@given(st.randoms(use_true_random=False))
@settings(max_examples=scaled(3000, least=100))
def test_every_expression_has_words(random: Random) -> None:
    words = describe(parse_cron(random_cron(random)))
    assert words.startswith(("at ", "every "))
    assert "  " not in words
    assert words.isascii()


def test_expressions_with_the_same_words_mean_the_same() -> None:
    dice = Random(7)
    meanings: dict[str, object] = {}
    for _ in range(scaled(50_000, least=2000)):
        cron = parse_cron(random_cron(dice))
        assert meanings.setdefault(describe(cron), meaning(cron)) == meaning(cron), describe(cron)
    for text in FORTY:
        cron = parse_cron(text)
        assert meanings.setdefault(describe(cron), meaning(cron)) == meaning(cron), text


def meaning(cron: Cron) -> tuple[object, ...]:
    """All that can be told apart of an expression: the days of the months of 28 years are those of all months there are."""
    days = tuple(cron.sets.days(year, month) for year in range(2000, 2028) for month in sorted(cron.months))
    return cron.minutes, cron.hours, cron.months, cron.years, cron.real_hours, days
