"""What the timetable refuses. Services turn these into errors of the contract."""

from __future__ import annotations

from collections.abc import Sequence

_MAX_GIVEN = 40
"""How many characters of what was given a message repeats."""


class InvalidCron(ValueError):
    """A text is no cron expression of ours. `message` names the field, what was given there and what is allowed.

    `field` is one of `minutes`, `hours`, `day-of-month`, `month`, `day-of-week` and `year`, or `expression` where the
    whole text is meant.
    """

    def __init__(self, field: str, given: str | None, complaint: str, allowed: str) -> None:
        """The message is `<field>: <given> <complaint> <allowed>`, such as `hours: 24 is not in 0-23`.

        `given` is None where the whole text is meant: errors repeat no more of a request than a word.
        """
        self.field = field
        self.given = "" if given is None else shortened(given)
        self.allowed = allowed
        self.message = f"{field}: {complaint if given is None else f'{self.given} {complaint}'} {allowed}"
        super().__init__(self.message)


class UnknownZone(ValueError):
    """A name is no time zone of the IANA database. `nearest` has the names that are most like it."""

    def __init__(self, name: str, nearest: Sequence[str]) -> None:
        self.name = shortened(name)
        self.nearest = tuple(nearest)
        likely = f"did you mean {' or '.join(self.nearest)}?" if nearest else "one is Europe/Berlin, another UTC"
        self.message = f"{self.name} is no time zone of the IANA database: {likely}"
        super().__init__(self.message)


def shortened(text: str) -> str:
    """The text as a message repeats it: in quotes where it would not read as a word, and not at length."""
    cut = text[:_MAX_GIVEN]
    word = cut if cut.isascii() and cut.isprintable() and cut and " " not in cut else ascii(cut)
    return word if cut == text else f"{word}…"
