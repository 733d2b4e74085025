"""Which cron expressions are read and which are refused, and what they mean where another library means the same."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest
from blobhub_server.scheduler.timetable import InvalidCron, find_zone, next_after, parse_cron
from cron_texts import MONTHS, WEEKDAYS, is_allowed, mutated, random_cron
from croniter import croniter
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scale import scaled

FIELDS = {"expression", "minutes", "hours", "day-of-month", "month", "day-of-week", "year"}
SAME_YEARS = (datetime(1999, 12, 31, 23, 59, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC))

# field by field, what AWS's page has, and the two extensions
DOCUMENTED = (
    ("0", "59", "*", "*/15", "1/10", "0,30", "10-20", "10-20/2", "5,10-20,*/30"),
    ("0", "23", "*", "*/2", "8-17", "8-17/3", "9,12"),
    ("?", "1", "31", "1-15", "1,15", "1/10", "L", "3W", "31W", "L-1", "L-30", "LW", "lw", "*"),
    ("1", "12", "JAN", "dec", "JAN,FEB,MAR", "JAN-MAR", "2-12/2", "*"),
    ("?", "1", "7", "SUN", "sat", "2-6", "MON-FRI", "MON,WED,FRI", "L", "6L", "FRIL", "3#2", "TUE#5", "*"),
    ("*", "1970", "2199", "2026-2030", "2026,2028", "2026/2"),
)

CRONTAB = (
    "* * * * *",
    "5 0 * * *",
    "15 14 1 * *",
    "0 22 * * 1-5",
    "23 0-23/2 * * *",
    "5 4 * * sun",
    "0 4 8-14 * *",
    "0 0 1,15 * 5",
    "*/5 8-18 * jan-mar,DEC MON",
    "0 0 * * 7",
    "0 0 * * 0-7",
    "0 0 * * FRI-SUN",
    "\t0  0\t* * * ",
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@midnight",
    "@Hourly",
)

REFUSED = {
    "": "expression: has 0 fields; allowed are six as in AWS EventBridge (minutes hours day-of-month month day-of-week"
    " year), or five as in a crontab (minutes hours day-of-month month day-of-week)",
    "60 * * * *": "minutes: 60 is not in 0-59",
    "0 24 * * ? *": "hours: 24 is not in 0-23",
    "0 0 0 * ? *": "day-of-month: 0 is not in 1-31",
    "0 0 1 13 ? *": "month: 13 is not in 1-12 or JAN-DEC",
    "0 0 ? * 8 *": "day-of-week: 8 is not in 1-7 or SUN-SAT",
    "0 0 ? * 0 *": "day-of-week: 0 is not in 1-7 or SUN-SAT",
    "0 0 * * 8": "day-of-week: 8 is not in 0-7 or SUN-SAT",
    "0 0 * * ? 1969": "year: 1969 is not in 1970-2199",
    "*/0 * * * *": "minutes: */0 has the step 0, which is not in 1-59",
    "*/60 * * * ? *": "minutes: */60 has the step 60, which is not in 1-59",
    "0 0 ? * 2/2 *": "day-of-week: 2/2 has a step, which this field does not take: 1-7 or SUN-SAT",
    "10-5 * * * ? *": "minutes: 10-5 is a range that runs backwards: write two ranges, of 0-59",
    "0 22-2 * * *": "hours: 22-2 is a range that runs backwards: write two ranges, of 0-23",
    "0 9 * * * *": "day-of-month: '* with day-of-week *' is not allowed: one of the two is ?, and one is not",
    "0 9 ? * ? *": "day-of-month: '? with day-of-week ?' is not allowed: one of the two is ?, and one is not",
    "0 0 1,L * ? *": "day-of-month: 1,L is a list with L, which stands alone in its field; a list has numbers, names and"
    " ranges",
    "0 0 ? * 3#1,6#3 *": "day-of-week: 3#1,6#3 is a list with #, which stands alone in its field; a list has numbers, names"
    " and ranges",
    "0 0 ? * 3#6 *": "day-of-week: 3#6 has the number 6 after #, which is not in 1-5",
    "0 0 L-31 * ? *": "day-of-month: L-31 counts back from the last day by what is not in 1-30",
    "0 0 32W * ? *": "day-of-month: 32 is not in 1-31",
    "@reboot": "expression: @reboot is not one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly",
    "0 0 L * *": "day-of-month: L is not of a form that is allowed: *, 5, 1-5, */2, 1/2, 1-5/2 or a list of such, of 1-31",
    "0 0 ? * FRIDAY *": "day-of-week: FRIDAY is not of a form that is allowed: *, 5, 1-5 or a list of such, of 1-7 or"
    " SUN-SAT",
    "1" * 257: "expression: has 257 characters; allowed are 256",
    "cron(0 9 ? * MON-FRI *)": "expression: cron() is not written here: an expression is its fields alone, such as"
    " 0 9 ? * MON-FRI * or */5 * * * *",
    "rate(5 minutes)": "expression: rate() is not written here: an expression is its fields alone, such as"
    " 0 9 ? * MON-FRI * or */5 * * * *",
    "0 9 ? * MON-FRI": "expression: has 5 fields, and ? is only among six; allowed are six as in AWS EventBridge"
    " (minutes hours day-of-month month day-of-week year)",
}


def in_field(position: int, text: str) -> str:
    """An expression of six fields with a text in one of them."""
    fields = [
        "0",
        "0",
        "?" if position == 4 and text != "?" else "1",
        "*",
        "MON" if position == 2 and text == "?" else "?",
        "*",
    ]
    fields[position] = text
    return " ".join(fields)


@pytest.mark.parametrize("text", [in_field(position, text) for position, texts in enumerate(DOCUMENTED) for text in texts])
def test_every_form_that_is_documented_is_read(text: str) -> None:
    assert is_allowed(text)
    parse_cron(text)


@pytest.mark.parametrize("text", CRONTAB)
def test_every_form_of_a_crontab_is_read(text: str) -> None:
    """Those of crontab(5), with the words that stand for five fields."""
    assert is_allowed(text)
    parse_cron(text)


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:40])
def test_what_is_refused_is_told_by_its_field_with_what_is_allowed(text: str) -> None:
    assert not is_allowed(text)
    with pytest.raises(InvalidCron) as refused:
        parse_cron(text)
    assert str(refused.value) == refused.value.message == REFUSED[text]


@given(st.randoms(use_true_random=False))
@settings(max_examples=scaled(3000, least=100))
def test_whatever_the_grammars_have_is_read(random: Random) -> None:
    text = random_cron(random)
    assert is_allowed(text)
    parse_cron(text)


@given(st.randoms(use_true_random=False).map(mutated) | st.text(max_size=30))
@settings(max_examples=scaled(10_000, least=300))
@example("0 0 * * ſun")
@example("0 0 * * ٣")
@example("0\xa00 * * *")
@example("0 0 15W * *")
@example("0 0 r * *")
@example("0 0 * * MON#1")
@example("0 0 * * * 0")
@example("0 0 * * 07-7")
def test_everything_else_is_refused_with_an_error_of_its_own(text: str) -> None:
    refused = refusal(text)
    assert (refused is None) == is_allowed(text)
    if refused is not None:
        assert refused.field in FIELDS
        assert refused.message.startswith(f"{refused.field}: ")
        assert refused.message.isprintable()
        assert len(refused.message) < 700


def refusal(text: str) -> InvalidCron | None:
    """What is said of a text that is refused."""
    try:
        parse_cron(text)
    except InvalidCron as refused:
        return refused
    return None


@given(st.randoms(use_true_random=False))
@settings(max_examples=scaled(3000, least=100))
def test_croniter_agrees_where_it_has_the_same_grammar(random: Random) -> None:
    """That is in UTC, for a crontab, but where it extends one in another way (see crontab.py)."""
    text = random_cron(random)
    if len(text.split()) != 5 or not _is_read_alike(text):
        return
    start, end = SAME_YEARS
    due = next_after(parse_cron(text), find_zone("UTC"), start)
    other = croniter(text, start, datetime, implement_cron_bug=True, max_years_between_matches=70)
    for _ in range(5):
        if due is None or due > end:
            break
        assert other.get_next(datetime) == due, text
        due = next_after(parse_cron(text), find_zone("UTC"), due)


def _is_read_alike(text: str) -> bool:
    """Whether croniter means by each part what a crontab means: no `5-5`, no step of weekdays, no later `*`."""
    months_and_weekdays = {
        **{name: str(n) for n, name in enumerate(MONTHS, 1)},
        **{name: str(n) for n, name in enumerate(WEEKDAYS)},
    }
    ranges = [
        part.partition("/")[0].split("-") for field in text.upper().split() for part in field.split(",") if "-" in part
    ]
    numbers = [[int(months_and_weekdays.get(end, end)) for end in ends] for ends in ranges]
    return (
        "/" not in text.split()[4]
        and ",*" not in text
        and all(first != last and {first, last} != {0, 7} for first, last in numbers)
    )
