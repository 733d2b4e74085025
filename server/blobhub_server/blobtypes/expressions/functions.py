"""The functions that expressions may call. Each is Python's function of that name, or its method, on what it is given.

`default` and `has` are not among these: they look at an argument that may be absent, so the evaluator does them itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from blobhub_server.blobtypes.expressions.errors import OutOfFuel, TooLarge, WrongType
from blobhub_server.blobtypes.expressions.fuel import (
    CHARACTERS,
    ITEMS,
    Fuel,
    kind_of,
    require_number,
    require_text,
    whole,
)
from blobhub_server.blobtypes.expressions.operators import contains, pay_for_finding

MAX_ARGUMENTS = 32
_MAX_DIGITS = 100
_MAX_PLACES = 300
_PIECES = 4
"""How many pieces of a text one unit is good for."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function, how many arguments it takes without their names, and which it takes by name."""

    run: Callable[..., Any]
    least: int
    most: int
    keywords: frozenset[str]


def items_of(fuel: Fuel, value: Any, what: str) -> list[Any] | tuple[Any, ...]:
    """The items of a list, the keys of an object, the characters of a text. Raises WrongType."""
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, dict | str):
        fuel.spend(len(value) // ITEMS)
        return list(value)
    raise WrongType(f"{what} takes a list, not {kind_of(value)}")


def text_of(value: Any, what: str) -> str:
    """A text. Raises WrongType."""
    if isinstance(value, str):
        return value
    raise WrongType(f"{what} takes a text, not {kind_of(value)}")


def to_text(fuel: Fuel, value: Any) -> str:
    """What `str` makes of a value."""
    if isinstance(value, str):
        return value
    fuel.weigh(value, items=4, characters=64)
    made = str(value)
    require_text(len(made))
    return made


def _len(fuel: Fuel, value: Any) -> int:
    del fuel
    if isinstance(value, str | list | tuple | dict):
        return len(value)
    raise WrongType(f"len takes a list, an object or a text, not {kind_of(value)}")


def _extreme(name: str, choose: Callable[..., Any]) -> Callable[..., Any]:
    """`min` or `max`."""

    def run(fuel: Fuel, *values: Any, **named: Any) -> Any:
        several = len(values) > 1
        found = values if several else items_of(fuel, values[0], name)
        if several and named:
            raise WrongType(f"{name} takes a default for a list only")
        fuel.weigh(found)
        return choose(found, **named)

    return run


def _sum(fuel: Fuel, values: Any, start: Any = 0) -> Any:
    found = items_of(fuel, values, "sum")
    fuel.spend(len(found) // ITEMS)
    # To a number Python adds nothing but numbers, and none of them is long.
    made = sum(found, require_number(start, "sum"))
    return whole(made) if isinstance(made, int) else made


def _abs(fuel: Fuel, number: Any) -> Any:
    del fuel
    return abs(require_number(number, "abs"))


def _round(fuel: Fuel, number: Any, ndigits: Any = None) -> Any:
    del fuel
    if ndigits is not None and (not isinstance(ndigits, int) or abs(ndigits) > _MAX_PLACES):
        raise WrongType(f"round takes a number of digits from -{_MAX_PLACES} to {_MAX_PLACES}")
    made = round(require_number(number, "round"), ndigits)
    return whole(made) if isinstance(made, int) else made


def _sorted(fuel: Fuel, values: Any, *, reverse: Any = False) -> list[Any]:
    found = items_of(fuel, values, "sorted")
    before = fuel.left
    fuel.weigh(found)
    fuel.spend((before - fuel.left) * len(found).bit_length())
    return sorted(found, reverse=bool(reverse))


def _int(fuel: Fuel, value: Any) -> int:
    del fuel
    if isinstance(value, str):
        if len(value) > _MAX_DIGITS:
            raise TooLarge(f"int takes a text of at most {_MAX_DIGITS} characters")
        return whole(int(value))
    return whole(int(require_number(value, "int")))


def _float(fuel: Fuel, value: Any) -> float:
    del fuel
    if isinstance(value, str):
        if len(value) > _MAX_DIGITS:
            raise TooLarge(f"float takes a text of at most {_MAX_DIGITS} characters")
        return float(value)
    return float(require_number(value, "float"))


def _bool(fuel: Fuel, value: Any) -> bool:
    del fuel
    return bool(value)


def _range(fuel: Fuel, *bounds: Any) -> list[int]:
    if not all(isinstance(bound, int) for bound in bounds):
        raise WrongType("range takes integers")
    numbers = range(*bounds)
    try:
        length = len(numbers)
    except OverflowError:
        raise OutOfFuel("range has more numbers than an expression may make") from None
    fuel.spend(length // (ITEMS // 2))
    return list(numbers)


def _test(name: str, decide: Callable[[Any], bool]) -> Callable[..., bool]:
    """`any` or `all` of a list."""

    def run(fuel: Fuel, values: Any) -> bool:
        found = items_of(fuel, values, name)
        fuel.spend(len(found) // ITEMS)
        return decide(found)

    return run


def _letters(name: str, change: Callable[[str], str]) -> Callable[..., str]:
    """A method that makes a text of a text, letter by letter."""

    def run(fuel: Fuel, text: str) -> str:
        text_of(text, name)
        # Letters beyond ASCII are looked up one by one.
        fuel.spend(len(text) // (CHARACTERS if text.isascii() else ITEMS))
        made = change(text)
        require_text(len(made))
        return made

    return run


def _strip(fuel: Fuel, text: str, characters: str | None = None) -> str:
    text_of(text, "strip")
    if characters is not None and len(text_of(characters, "strip")) > _MAX_DIGITS:
        raise TooLarge(f"strip takes at most {_MAX_DIGITS} characters to remove")
    fuel.spend(len(text) // ITEMS)
    return text.strip(characters)


def _split(fuel: Fuel, text: str, separator: str | None = None) -> list[str]:
    text_of(text, "split")
    if separator is not None:
        pay_for_finding(fuel, text_of(separator, "split"), text)
    fuel.spend(len(text) // (CHARACTERS // 4))
    # Pieces take fifty times as much memory as their letters, so no more are made than can be paid for.
    made = text.split(separator, fuel.left * _PIECES)
    fuel.spend(len(made) // _PIECES)
    return made


def _join(fuel: Fuel, separator: str, values: Any) -> str:
    text_of(separator, "join")
    found = items_of(fuel, values, "join")
    fuel.spend(len(found) // _PIECES)
    length = sum(len(text_of(item, "join")) for item in found) + len(separator) * len(found)
    require_text(length)
    fuel.spend(length // CHARACTERS)
    return separator.join(found)


def _replace(fuel: Fuel, text: str, old: str, new: str) -> str:
    for given in (text, old, new):
        text_of(given, "replace")
    pay_for_finding(fuel, old, text)
    times = text.count(old)
    length = len(text) + times * (len(new) - len(old))
    require_text(length)
    fuel.spend(times // _PIECES + length // CHARACTERS)
    return text.replace(old, new)


def _startswith(fuel: Fuel, text: Any, start: Any) -> bool:
    fuel.spend(len(text_of(start, "startswith")) // CHARACTERS)
    return text_of(text, "startswith").startswith(start)


def _endswith(fuel: Fuel, text: Any, end: Any) -> bool:
    fuel.spend(len(text_of(end, "endswith")) // CHARACTERS)
    return text_of(text, "endswith").endswith(end)


def _contains(fuel: Fuel, container: Any, item: Any) -> bool:
    return contains(fuel, item, container)


def _part(name: str, read: Callable[[dict[str, Any]], list[Any]]) -> Callable[..., list[Any]]:
    """The keys, the values or both of an object, as a list."""

    def run(fuel: Fuel, value: Any) -> list[Any]:
        if not isinstance(value, dict):
            raise WrongType(f"{name} takes an object, not {kind_of(value)}")
        fuel.spend(len(value) // _PIECES)
        return read(value)

    return run


def _of(run: Callable[..., Any], least: int, most: int, *keywords: str) -> Function:
    return Function(run=run, least=least, most=most, keywords=frozenset(keywords))


FUNCTIONS: dict[str, Function] = {
    "abs": _of(_abs, 1, 1),
    "all": _of(_test("all", all), 1, 1),
    "any": _of(_test("any", any), 1, 1),
    "bool": _of(_bool, 1, 1),
    "contains": _of(_contains, 2, 2),
    "endswith": _of(_endswith, 2, 2),
    "float": _of(_float, 1, 1),
    "int": _of(_int, 1, 1),
    "items": _of(_part("items", lambda value: list(value.items())), 1, 1),
    "join": _of(_join, 2, 2),
    "keys": _of(_part("keys", list), 1, 1),
    "len": _of(_len, 1, 1),
    "lower": _of(_letters("lower", str.lower), 1, 1),
    "max": _of(_extreme("max", max), 1, MAX_ARGUMENTS, "default"),
    "min": _of(_extreme("min", min), 1, MAX_ARGUMENTS, "default"),
    "range": _of(_range, 1, 3),
    "replace": _of(_replace, 3, 3),
    "round": _of(_round, 1, 2, "ndigits"),
    "sorted": _of(_sorted, 1, 1, "reverse"),
    "split": _of(_split, 1, 2),
    "startswith": _of(_startswith, 2, 2),
    "str": _of(to_text, 1, 1),
    "strip": _of(_strip, 1, 2),
    "sum": _of(_sum, 1, 2, "start"),
    "upper": _of(_letters("upper", str.upper), 1, 1),
    "values": _of(_part("values", lambda value: list(value.values())), 1, 1),
}
"""By name. What Python has as a method of a text or an object takes that as its first argument."""

FORMS = {"default": 2, "has": 1}
"""How many arguments those take that the evaluator does itself."""
