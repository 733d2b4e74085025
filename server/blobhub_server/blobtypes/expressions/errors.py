"""What can be wrong with an expression, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable

_SHOWN = 20


class ExpressionError(Exception):
    """An expression cannot be read, or has no value. `line` and `column` count from 1; 0 when they are not known."""

    reason = "EXPRESSION_ERROR"

    def __init__(self, message: str, *, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


class InvalidSyntax(ExpressionError):
    """It is not an expression, or one that uses what there is not in expressions."""

    reason = "EXPRESSION_SYNTAX"


class Absent(ExpressionError):
    """It reads a key or an item that is not there. `default` and `has` catch this one."""

    reason = "EXPRESSION_ABSENT"


class UnknownName(Absent):
    """It uses a name that nobody provides."""

    reason = "EXPRESSION_NAME"


class OutOfFuel(ExpressionError):
    """It takes more work than an expression may."""

    reason = "EXPRESSION_FUEL"


class WrongType(ExpressionError):
    """It asks something of a value that values of its type do not do."""

    reason = "EXPRESSION_TYPE"


class TooLarge(ExpressionError):
    """It makes a number, a text or a result beyond the bounds."""

    reason = "EXPRESSION_SIZE"


_FOREIGN = {"true": "True", "false": "False", "null": "None", "undefined": "None"}


def unknown_name(name: str, names: Iterable[str], *, line: int = 0, column: int = 0) -> UnknownName:
    """The error for a name that is not among the names there are."""
    there = f"Python writes `{_FOREIGN[name]}`" if name in _FOREIGN else f"there {listing(names)}"
    return UnknownName(f"there is no name `{name[:60]}`; {there}", line=line, column=column)


def listing(names: Iterable[object]) -> str:
    """Names in words, not too many of them: "are a, b"."""
    # Names come from callers: a mapping may have many of them, and each may be long.
    found = [str(name)[:60] for _, name in zip(range(_SHOWN + 1), names, strict=False)]
    if not found:
        return "are none"
    more = ", …" if len(found) > _SHOWN else ""
    return f"{'is' if len(found) == 1 else 'are'} {', '.join(sorted(found[:_SHOWN]))}{more}"
