"""The work that an expression may do, counted in units so that it is the same on every machine.

A unit is about what it takes to evaluate one node, a microsecond. What Python does in one step with something large
is paid for by its size, before it is done. Every unit brings at most about a kibibyte into being.
"""

from __future__ import annotations

from typing import Any

from blobhub_server.blobtypes.expressions.errors import OutOfFuel, TooLarge, WrongType

UNITS = 10_000
"""What one evaluation may spend."""

MAX_TEXT = 1 << 20
"""Characters in a text that an expression makes."""
MAX_BITS = 256
"""Bits in an integer that an expression makes. Its result has 64, so that there is room on the way to it."""

ITEMS, CHARACTERS = 16, 256
"""How many items of a list, and how many characters of a text, one unit is good for in a plain pass over them."""

_NUMBERS = frozenset({int, float, bool, type(None)})
_SCALARS = _NUMBERS | {str}


class Fuel:
    """What is left to spend."""

    __slots__ = ("given", "left")

    def __init__(self, units: int = UNITS) -> None:
        self.given = self.left = units

    @property
    def spent(self) -> int:
        """The units spent so far; more than were given when it ran out."""
        return self.given - self.left

    def spend(self, units: int) -> None:
        """Take units away. Raises OutOfFuel when there are not that many."""
        self.left -= units
        if self.left < 0:
            raise OutOfFuel(f"takes more work than the {self.given} units that an expression may")

    def weigh(self, value: Any, items: int = ITEMS, characters: int = CHARACTERS) -> None:
        """Pay for going over everything in a value, as often as it is in it; a unit is good for that much.

        Raises OutOfFuel. What is in a list a thousand times is gone over a thousand times, so the walk pays as it goes.
        """
        left = [value]
        while left:
            value = left.pop()
            kind = type(value)
            if kind is str:
                self.spend(len(value) // characters)
            elif kind is list or kind is tuple:
                self._weigh_items(value, left, items, characters)
            elif kind is dict:
                self.spend(sum(map(len, value)) // characters + len(value) // items)
                self._weigh_items(list(value.values()), left, items, characters)

    def _weigh_items(self, values: list[Any] | tuple[Any, ...], left: list[Any], items: int, characters: int) -> None:
        self.spend(2 + len(values) // items)
        kinds = set(map(type, values))
        if kinds <= _NUMBERS:
            return
        if kinds <= _SCALARS:
            self.spend(sum(map(len, filter(_is_text, values))) // characters)
        else:
            left += values


def _is_text(value: Any) -> bool:
    return type(value) is str


def whole(number: int) -> int:
    """An integer, if it is within its bounds. Raises TooLarge."""
    if number.bit_length() > MAX_BITS:
        raise TooLarge(f"makes an integer of more than {MAX_BITS} bits")
    return number


def require_text(length: int) -> None:
    """Raise TooLarge when a text of that many characters is too long."""
    if length > MAX_TEXT:
        raise TooLarge(f"makes a text of more than {MAX_TEXT} characters")


def kind_of(value: Any) -> str:
    """The type of a value, in the word that Python has for it."""
    return "None" if value is None else type(value).__name__


def require_number(value: Any, what: str) -> int | float:
    """A number. Raises WrongType."""
    if isinstance(value, int | float):
        return value
    raise WrongType(f"{what} takes numbers, not {kind_of(value)}")
