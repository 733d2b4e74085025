"""Operators: Python's own, each paid for by the size of its operands and bounded in what it makes."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sized
from typing import Any

from blobhub_server.blobtypes.expressions.errors import TooLarge, WrongType
from blobhub_server.blobtypes.expressions.fuel import (
    CHARACTERS,
    ITEMS,
    MAX_BITS,
    Fuel,
    kind_of,
    require_text,
    whole,
)

Operator = Callable[[Fuel, Any, Any], Any]

_SEQUENCES = (str, list, tuple)
_NUMBERS = (int, float)


def _both(left: Any, right: Any, sign: str) -> None:
    """Raise WrongType unless both are numbers."""
    if not (isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS)):
        told = f"`{sign}` takes numbers, not {kind_of(left)} and {kind_of(right)}"
        raise WrongType(f"{told}; to format a text write f'…{{name}}…'" if sign == "%" and isinstance(left, str) else told)


def _whole(left: Any, right: Any, sign: str) -> None:
    """Raise WrongType unless both are integers."""
    if not (isinstance(left, int) and isinstance(right, int)):
        raise WrongType(f"`{sign}` takes integers, not {kind_of(left)} and {kind_of(right)}")


def _bounded(value: Any) -> Any:
    """A number that an operator has made, if it is one that an expression may make."""
    if isinstance(value, int):
        return whole(value)
    if isinstance(value, complex):
        raise WrongType("the power is a complex number")
    return value


def _arithmetic(sign: str, make: Callable[[Any, Any], Any]) -> Operator:
    """An operator on two numbers whose result is hardly larger than they are."""

    def run(fuel: Fuel, left: Any, right: Any) -> Any:
        del fuel
        _both(left, right, sign)
        return _bounded(make(left, right))

    return run


def _bits(sign: str, make: Callable[[Any, Any], Any]) -> Operator:
    """An operator on the bits of two integers."""

    def run(fuel: Fuel, left: Any, right: Any) -> Any:
        del fuel
        _whole(left, right, sign)
        return make(left, right)

    return run


def _pay_for_making(fuel: Fuel, kind: type, length: int) -> None:
    """Pay for a text, list or tuple of that length before it is made."""
    if kind is str:
        require_text(length)
    fuel.spend(length // (CHARACTERS if kind is str else ITEMS))


def _add(fuel: Fuel, left: Any, right: Any) -> Any:
    kind = type(left)
    if kind in _SEQUENCES:
        if type(right) is not kind:
            raise WrongType(f"`+` takes two of a kind, not {kind_of(left)} and {kind_of(right)}")
        _pay_for_making(fuel, kind, len(left) + len(right))
        return left + right
    _both(left, right, "+")
    return _bounded(left + right)


def _multiply(fuel: Fuel, left: Any, right: Any) -> Any:
    if type(right) in _SEQUENCES:
        left, right = right, left
    if type(left) in _SEQUENCES:
        if not isinstance(right, int):
            raise WrongType(f"`*` repeats by an integer, not by {kind_of(right)}")
        _pay_for_making(fuel, type(left), len(left) * max(right, 0))
        return left * right
    _both(left, right, "*")
    return _bounded(left * right)


def _power(fuel: Fuel, left: Any, right: Any) -> Any:
    del fuel
    _both(left, right, "**")
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > 2 * MAX_BITS:
        if left not in (-1, 0, 1):  # Python takes no short way even for those when the exponent is long.
            raise TooLarge(f"makes an integer of more than {MAX_BITS} bits")
        return int(left) if right % 2 else left * left
    return _bounded(left**right)


def _either(fuel: Fuel, left: Any, right: Any) -> Any:
    """`|`: of two objects the one with the keys of both, of two integers what their bits say."""
    if isinstance(left, dict) and isinstance(right, dict):
        fuel.spend((len(left) + len(right)) // 4)
        return left | right
    _whole(left, right, "|")
    return left | right


def _shift_left(fuel: Fuel, left: Any, right: Any) -> Any:
    del fuel
    _whole(left, right, "<<")
    if right > MAX_BITS:
        raise TooLarge(f"shifts by more than {MAX_BITS} bits")
    return whole(left << right)


def _equal(fuel: Fuel, left: Any, right: Any) -> bool:
    _pay_for_comparing(fuel, left, right, ordered=False)
    return bool(left == right)


def _unequal(fuel: Fuel, left: Any, right: Any) -> bool:
    return not _equal(fuel, left, right)


def _order(make: Callable[[Any, Any], Any]) -> Operator:
    """A comparison by order."""

    def run(fuel: Fuel, left: Any, right: Any) -> bool:
        _pay_for_comparing(fuel, left, right, ordered=True)
        return bool(make(left, right))

    return run


def _pay_for_comparing(fuel: Fuel, left: Any, right: Any, *, ordered: bool) -> None:
    kind = type(left)
    if kind is not type(right) or not isinstance(left, Sized) or not isinstance(right, Sized):
        return
    if kind is str:
        fuel.spend(min(len(left), len(right)) // CHARACTERS)
    elif ordered or len(left) == len(right):
        fuel.weigh(left)


def contains(fuel: Fuel, item: Any, container: Any) -> bool:
    """Whether an item is in a list, a key in a mapping, a text in a text."""
    kind = type(container)
    if kind is str:
        if not isinstance(item, str):
            raise WrongType(f"`in` looks for a text in a text, not for {kind_of(item)}")
        pay_for_finding(fuel, item, container)
    elif kind is dict:
        fuel.weigh(item)
    elif kind is list or kind is tuple:
        if isinstance(item, list | tuple | dict):
            fuel.weigh(container)
        else:
            fuel.spend(len(container) // ITEMS + (len(container) * len(item) // CHARACTERS if type(item) is str else 0))
    else:
        raise WrongType(f"`in` looks into a list, an object or a text, not into {kind_of(container)}")
    return item in container


def pay_for_finding(fuel: Fuel, part: str, text: str) -> None:
    """Pay for a search of a text. Where both are short, Python compares each place anew."""
    fuel.spend(len(text) // (CHARACTERS // 4) + min(len(text), 30_000) * min(len(part), 100) // 1024)


def _lacks(fuel: Fuel, item: Any, container: Any) -> bool:
    return not contains(fuel, item, container)


BINARY: dict[type[ast.operator], Operator] = {
    ast.Add: _add,
    ast.Sub: _arithmetic("-", operator.sub),
    ast.Mult: _multiply,
    ast.Div: _arithmetic("/", operator.truediv),
    ast.FloorDiv: _arithmetic("//", operator.floordiv),
    ast.Mod: _arithmetic("%", operator.mod),
    ast.Pow: _power,
    ast.LShift: _shift_left,
    ast.RShift: _bits(">>", operator.rshift),
    ast.BitAnd: _bits("&", operator.and_),
    ast.BitOr: _either,
    ast.BitXor: _bits("^", operator.xor),
}

COMPARISONS: dict[type[ast.cmpop], Operator] = {
    ast.Eq: _equal,
    ast.NotEq: _unequal,
    ast.Lt: _order(operator.lt),
    ast.LtE: _order(operator.le),
    ast.Gt: _order(operator.gt),
    ast.GtE: _order(operator.ge),
    ast.In: contains,
    ast.NotIn: _lacks,
    ast.Is: lambda _, left, right: left is right,
    ast.IsNot: lambda _, left, right: left is not right,
}

UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
