"""Cron expressions for tests: forty that show every form, random ones, and a second opinion on which texts are allowed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

FORTY = (
    # fixed hours, around those in which offsets change
    "0 0 * * ? *",
    "30 0 * * ? *",
    "0 1 * * *",
    "30 1 * * ? *",
    "45 1 * * *",
    "0 2 * * ? *",
    "15 2 * * *",
    "30 2 * * ? *",
    "59 2 * * *",
    "0 3 * * ? *",
    "1 3 * * *",
    "0 4 * * ? *",
    "59 23 * * *",
    "30 23 * * ? *",
    "*/15 2 * * ? *",
    "* 2 * * *",
    "*/20 0-3 * * ? *",
    "10-50/10 1,2,3 * * *",
    "5/25 22-23 * * ? *",
    "0 0/2 * * ? *",
    "0 0,12 * * *",
    # real hours
    "* * * * ? *",
    "*/15 * * * *",
    "0 * * * ? *",
    "30 * * * *",
    "45 */2 * * ? *",
    "0 */3 * * *",
    "7,37 0-23 * * ? *",
    "0 0/1 * * ? *",
    # days
    "0 2 ? * SUN *",
    "30 1 ? * 1#1 *",
    "30 2 ? * SUNL *",
    "0 3 L * ? *",
    "0 0 L-3 * ? *",
    "15 2 LW * ? *",
    "0 0 1W * ? *",
    "30 2 */2 * SUN",
    "0 2 1,15,30 3,10 0",
    "30 2 * 1-5,9-12 FRI-SUN",
    "30 2 ? MAR,OCT,NOV L 2020-2037/3",
)


def random_cron(random: Random) -> str:
    """An expression that is allowed, of either grammar."""
    minutes, hours = numbers(random, 0, 59), numbers(random, 0, 23)
    month = numbers(random, 1, 12, MONTHS)
    if random.random() < 0.4:
        return f"{minutes} {hours} {numbers(random, 1, 31)} {month} {numbers(random, 0, 7, WEEKDAYS)}"
    year = "*" if random.random() < 0.7 else numbers(random, 1970, 2199)
    if random.random() < 0.5:
        return f"{minutes} {hours} {day_of_month(random)} {month} ? {year}"
    return f"{minutes} {hours} ? {month} {day_of_week(random)} {year}"


def day_of_month(random: Random) -> str:
    """What AWS allows there, but for `?`."""
    other = ("L", "LW", f"L-{random.randint(1, 30)}", f"{random.randint(1, 31)}W")
    return random.choice(other) if random.random() < 0.4 else numbers(random, 1, 31)


def day_of_week(random: Random) -> str:
    """What AWS allows there, but for `?`."""
    weekday = random.choice([*WEEKDAYS, *"1234567"])
    other = ("L", f"{weekday}L", f"{weekday}#{random.randint(1, 5)}")
    return random.choice(other) if random.random() < 0.4 else numbers(random, 1, 7, WEEKDAYS, steps=False)


def numbers(random: Random, low: int, high: int, names: Sequence[str] = (), *, steps: bool = True) -> str:
    """A field of numbers, names, ranges and steps."""
    if random.random() < 0.3:
        return "*"
    count = random.choice((1, 1, 1, 2, 3))
    return ",".join(part(random, low, high, names, steps=steps) for _ in range(count))


def part(random: Random, low: int, high: int, names: Sequence[str], *, steps: bool) -> str:
    """One part of such a field."""
    first, last = sorted(random.choices(range(low, high + 1), k=2))
    step = f"/{random.randint(1, min(high, high - low + 1))}" if steps else ""
    begin, end = (random.choice((str(number), name(number, low, names))) for number in (first, last))
    return random.choice((begin, begin, f"{begin}-{end}", f"*{step}", f"{begin}{step}", f"{begin}-{end}{step}"))


def name(number: int, low: int, names: Sequence[str]) -> str:
    """The name of a number, if it has one, in either case."""
    return names[(number - low) % len(names)].title() if names else f"{number:02}"


ALPHABET = "0123456789*,-/?LW#lw @\t\n\r\x0b\xa0SUNMOJAéſHR()٣½+_."


def mutated(random: Random) -> str:
    """An expression in which a few characters are others, too many, or missing."""
    text = list(random_cron(random))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        at = random.randrange(len(text) + 1)
        text[at : at + random.randint(0, 1)] = random.choice(["", *ALPHABET])
    return "".join(text)


NUMBER = r"(?:[0-9]{1,4}|[A-Z]{3})"
PART = re.compile(rf"(\*|{NUMBER})(?:-({NUMBER}))?(?:/([0-9]{{1,4}}))?")


def is_allowed(text: str) -> bool:
    """Whether an expression is of the forms that docs/schedules.md has."""
    if text.strip(" \t").lower() in {"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"}:
        return True
    if len(text) > 256 or not text.isascii():
        return False
    fields = re.split("[ \t]+", text.upper().strip(" \t"))
    if len(fields) not in {5, 6}:
        return False
    around = allowed(fields[0], 0, 59) and allowed(fields[1], 0, 23) and allowed(fields[3], 1, 12, MONTHS)
    if len(fields) == 5:
        return around and allowed(fields[2], 1, 31) and allowed(fields[4], 0, 7, WEEKDAYS)
    if not around or not allowed(fields[5], 1970, 2199) or (fields[2] == "?") == (fields[4] == "?"):
        return False
    return allowed_day_of_month(fields[2]) if fields[4] == "?" else allowed_day_of_week(fields[4])


def allowed_day_of_month(text: str) -> bool:
    """Whether AWS, and the two extensions, have it."""
    return bool(
        text in {"L", "LW"}
        or (re.fullmatch(r"L-[0-9]{1,2}", text) and 1 <= int(text[2:]) <= 30)
        or (re.fullmatch(r"[0-9]{1,2}W", text) and 1 <= int(text[:-1]) <= 31)
        or allowed(text, 1, 31)
    )


def allowed_day_of_week(text: str) -> bool:
    """Whether AWS has it."""
    weekday = f"(?:[1-7]|{'|'.join(WEEKDAYS)})"
    special = rf"L|{weekday}L|0?{weekday}#0?[1-5]"
    return bool(re.fullmatch(special, text)) or ("/" not in text and allowed(text, 1, 7, WEEKDAYS))


def allowed(text: str, low: int, high: int, names: Sequence[str] = ()) -> bool:
    """Whether it is a list of numbers, ranges that run forward, and steps."""
    return all(part_is_allowed(part, low, high, names) for part in text.split(","))


def part_is_allowed(text: str, low: int, high: int, names: Sequence[str]) -> bool:
    """Whether one part of a list is allowed."""
    form = PART.fullmatch(text)
    if form is None or (form[1] == "*" and form[2]) or (form[3] and not 1 <= int(form[3]) <= min(high, high - low + 1)):
        return False
    written = [number for number in form.group(1, 2) if number not in {"*", None}]
    if not all(number in names or (number.isdecimal() and low <= int(number) <= high) for number in written):
        return False
    ends = [low + names.index(number) if number in names else int(number) for number in written]
    if high == 7 and low == 0:  # in a crontab, Sunday is 0 and 7, and ends a range too
        return len(ends) < 2 or ends[0] % 7 <= (ends[1] % 7 or 7)
    return ends == sorted(ends)
