"""Expressions: one line of Python over names, bounded in the work that it does and in what it makes.

    expression = parse("sum([item.price * item.count for item in order.items])")
    value = evaluate(expression, {"order": order}, Fuel())

`Computed` is a value of a document that is an expression or a template.

`docs/expressions.md` is what users read about them. The package is pure: no clock, no randomness, no I/O. An expression has
the same value, or the same error after as many units of fuel, everywhere.
"""

from blobhub_server.blobtypes.expressions.computed import Computed, evaluate_computed, is_computed
from blobhub_server.blobtypes.expressions.errors import (
    Absent,
    ExpressionError,
    InvalidSyntax,
    OutOfFuel,
    TooLarge,
    UnknownName,
    WrongType,
    listing,
    unknown_name,
)
from blobhub_server.blobtypes.expressions.evaluator import Namespace, evaluate
from blobhub_server.blobtypes.expressions.fuel import UNITS, Fuel
from blobhub_server.blobtypes.expressions.functions import FORMS, FUNCTIONS
from blobhub_server.blobtypes.expressions.source import MAX_LENGTH, Expression, NameUse, parse

__all__ = [
    "FORMS",
    "FUNCTIONS",
    "MAX_LENGTH",
    "UNITS",
    "Absent",
    "Computed",
    "Expression",
    "ExpressionError",
    "Fuel",
    "InvalidSyntax",
    "NameUse",
    "Namespace",
    "OutOfFuel",
    "TooLarge",
    "UnknownName",
    "WrongType",
    "evaluate",
    "evaluate_computed",
    "is_computed",
    "listing",
    "parse",
    "unknown_name",
]
