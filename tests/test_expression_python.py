"""Expressions agree with Python: what has a value has the same one, for random expressions that mean no harm."""

from __future__ import annotations

import builtins
import json
import warnings
from contextlib import suppress
from typing import Any

from blobhub_server.blobtypes.expressions import ExpressionError, Fuel, OutOfFuel, TooLarge, WrongType, evaluate, parse
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from scale import scaled

NAMES: dict[str, Any] = {
    "i": 7,
    "f": -0.5,
    "t": "abc ab",
    "n": [3, 1, 2],
    "o": {"a": 1, "b": [1.5, "x"], "c": None},
    "rows": [{"a": 1, "t": "x"}, {"a": 2, "t": "yé"}],
    "big": 2**63,
    "x": 0,
}
SAME = ("abs", "all", "any", "bool", "float", "int", "len", "max", "min", "round", "sorted", "str", "sum")
METHODS = ("lower", "upper", "strip", "split", "join", "replace", "startswith", "endswith")
PYTHON: dict[str, Any] = {
    "__builtins__": {},
    **{name: getattr(builtins, name) for name in SAME},
    **{name: getattr(str, name) for name in METHODS},
    "contains": lambda container, item: item in container,
    "items": lambda value: list(dict.items(value)),
    "keys": lambda value: list(dict.keys(value)),
    "range": lambda *bounds: list(range(*bounds)),
    "values": lambda value: list(dict.values(value)),
}

LEAVES = [
    *NAMES, "0", "1", "-3", "2.5", "10", "'a'", "'ab '", "''", "'é'", "True", "False", "None", "[]", "{}", "()", "[1, 2]",
    "o['a']", "o['b']", "n[0]", "rows[0]['t']", "{'a': 1}", "f'{i:>6}{f:.2f}'", "f'{t!r} {n}'",
]  # fmt: skip
BINARY = ["+", "-", "*", "/", "//", "%", ">>", "&", "|", "^", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]
UNARY = ["-{}", "+{}", "~{}", "not {}", "{} ** 2", "2 ** {}", "{} << 3", "{} is None", "{}[1:]", "{}[::-2]", "{}[-1]"]
ONE = [*SAME, "lower", "upper", "strip", "split", "items", "keys", "range", "values"]
TWO = ["max", "min", "range", "round", "strip", "split", "join", "startswith", "endswith", "contains"]
THREE = [
    "replace({}, {}, {})", "({} if {} else {})", "({} < {} < {})", "[{} for x in {} if {}]",
    "[{} for x, y in {} for y in {}]", "{{str({}): {} for x in {}}}", "{}[{}:{}]", "[{}, *{}, {}]",
    "{{**{}, 'k': {}, t: {}}}", "({}, {}, {})",
]  # fmt: skip
LOOPS = ["any({} for x in {})", "all({} for x in {})", "sum({} for x in {})", "{}[{}]"]


def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    shapes = [
        *(f"({{}} {sign} {{}})" for sign in BINARY),
        *(f"({shape})" for shape in UNARY),
        *(f"{name}({{}})" for name in ONE),
        *(f"{name}({{}}, {{}})" for name in TWO),
        *THREE,
        *LOOPS,
    ]
    return st.builds(lambda shape, parts: shape.format(*parts), st.sampled_from(shapes), st.tuples(inner, inner, inner))


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON, to the type of each number."""
    return repr(json.loads(json.dumps(one))) == repr(json.loads(json.dumps(other)))


def is_json(value: Any) -> bool:
    """Whether a value has texts alone for keys, and numbers that JSON has."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_json(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_json, value))
    return not isinstance(value, complex)


def differs(text: str) -> bool:
    """Whether it may be about what expressions do not take and Python does.

    That is formats by `%`, several starts of a text, and rounding to more digits than a number has.
    """
    return any(sign in text for sign in ("%", "swith(", "{**", "round("))


@settings(max_examples=scaled(20_000, least=1500))
@given(text=st.recursive(st.sampled_from(LEAVES), grow, max_leaves=8))
@example("[x for x in n if x > 1]")
@example("[n for n in n]")
@example("sum(x for x in n) / len(n)")
@example("(n + [t] * 2)[1:][0]")
@example("round(i, big)")
def test_an_expression_has_the_value_that_it_has_in_python(text: str) -> None:
    if len(text) > 900:
        return
    try:
        ours, problem = evaluate(parse(text), NAMES, Fuel()), None
    except (TooLarge, OutOfFuel):
        event("beyond the bounds")
        return
    except ExpressionError as error:
        ours, problem = None, error
    python: tuple[Any, ...] = ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(Exception):
            python = (eval(text, PYTHON | NAMES),)
    if not python:
        assert problem is not None, f"{ours!r}, and in Python an error"
        event("an error in both")
        return
    (theirs,) = python
    if problem is None:
        event("the same value")
        assert same(ours, theirs), f"{ours!r}, and in Python {theirs!r}"
    else:
        assert isinstance(problem, WrongType), problem
        assert differs(text) or not is_json(theirs), f"{problem}, and in Python {theirs!r}"
