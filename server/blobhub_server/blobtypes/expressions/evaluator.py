"""Evaluates an expression. What `simpleeval` leaves open is closed here; what stays of it is how a tree is walked."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from simpleeval import SimpleEval

from blobhub_server.blobtypes import json_text
from blobhub_server.blobtypes.expressions.errors import (
    Absent,
    ExpressionError,
    OutOfFuel,
    TooLarge,
    WrongType,
    listing,
    unknown_name,
)
from blobhub_server.blobtypes.expressions.fuel import CHARACTERS, ITEMS, Fuel, kind_of, require_text
from blobhub_server.blobtypes.expressions.functions import FUNCTIONS, items_of, to_text
from blobhub_server.blobtypes.expressions.operators import BINARY, COMPARISONS, UNARY
from blobhub_server.blobtypes.expressions.source import Expression
from blobhub_server.errors import InvalidValue


class Namespace(dict[str, Any]):
    """Names below a name, such as the outputs of a step. `absence` begins what whoever reads another one is told."""

    __slots__ = ("absence",)

    def __init__(self, absence: str) -> None:
        super().__init__()
        self.absence = absence


_FORMAT = re.compile(r"(?:.?[<>=^])?[+\- ]?#?0?\d{0,3}[,_]?(?:\.\d{1,3})?[bdeEfFgGosxX%]?", re.DOTALL)
_REPRESENTATION = ord("r")


def evaluate(expression: Expression, names: Mapping[str, Any], fuel: Fuel, *, bounded: Collection[Any] = ()) -> Any:
    """The value of an expression over names, as JSON within the bounds of a value. Raises ExpressionError.

    The values of names are JSON. Those in `bounded` are known to be within the bounds; one that is the result comes back as
    it is, whatever its size.
    """
    evaluator = _Evaluator(names, fuel)
    try:
        fuel.spend(expression.cost + len(names) // ITEMS)
        return bound_result(evaluator.eval(expression.text, expression.tree), bounded, fuel)
    except ExpressionError as error:
        _place(error, expression, evaluator.failed)
        raise
    except Exception as error:
        found = _as_own(error)
        _place(found, expression, evaluator.failed)
        raise found from None


def _as_own(error: Exception) -> ExpressionError:
    """What Python raises, as one of ours."""
    match error:
        case TypeError():
            return WrongType(str(error)[:300])
        case OverflowError():
            return TooLarge("makes a number that is too large")
        case ZeroDivisionError():
            return ExpressionError("divides by zero")
        case MemoryError() | RecursionError():
            return OutOfFuel("nests too deep")
        case _:
            return ExpressionError(str(error)[:300] or type(error).__name__)


def _place(error: ExpressionError, expression: Expression, node: ast.AST | None) -> None:
    if node is not None:
        error.line, error.column = expression.places.of(node)


def bound_result(value: Any, bounded: Collection[Any], fuel: Fuel) -> Any:
    """A value as plain JSON."""
    # Writing an integer costs no fuel, so those within their bounds need not be written to be bounded.
    if type(value) is int and json_text.MIN_INTEGER <= value <= json_text.MAX_INTEGER:
        return value
    if value is None or isinstance(value, bool) or any(value is given for given in bounded):
        return value
    # It is written and read, which takes longer than going over it.
    fuel.weigh(value, items=2, characters=128)
    try:
        text = json_text.encode("the result", value)
    except InvalidValue as error:
        raise TooLarge(str(error)) from None
    fuel.spend(len(text) // 128)  # A letter may take six there.
    return json_text.load(text) if isinstance(value, list | tuple | dict) else value


class _Evaluator(SimpleEval):  # type: ignore[misc]  # it has no types
    """One evaluation. `failed` is the node that an error came from."""

    operators = UNARY

    def __init__(self, names: Mapping[str, Any], fuel: Fuel) -> None:
        # SimpleEval's own takes longer than most evaluations: it copies its tables each time.
        self.names = dict(names)
        self.fuel = fuel
        self.failed: ast.AST | None = None

    def _eval(self, node: ast.AST) -> Any:
        fuel = self.fuel
        fuel.left -= 1
        if fuel.left < 0:
            fuel.spend(0)
        try:
            return _HANDLERS[type(node)](self, node)
        except Exception:
            if self.failed is None:
                self.failed = node
            raise

    def _eval_constant(self, node: ast.Constant) -> Any:
        return node.value

    def _eval_name(self, node: ast.Name) -> Any:
        try:
            return self.names[node.id]
        except KeyError:
            raise unknown_name(node.id, self.names) from None

    def _eval_unaryop(self, node: ast.UnaryOp) -> Any:
        value = self._eval(node.operand)
        if not isinstance(node.op, ast.Not) and not isinstance(value, int | float):
            raise WrongType(f"a sign is for numbers, not for {kind_of(value)}")
        return UNARY[type(node.op)](value)

    def _eval_binop(self, node: ast.BinOp) -> Any:
        return BINARY[type(node.op)](self.fuel, self._eval(node.left), self._eval(node.right))

    def _eval_compare(self, node: ast.Compare) -> bool:
        left = self._eval(node.left)
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            right = self._eval(comparator)
            if not COMPARISONS[type(op)](self.fuel, left, right):
                return False
            left = right
        return True

    def _eval_attribute(self, node: ast.Attribute) -> Any:
        """A dot reads a key of an object, and nothing else."""
        value = self._eval(node.value)
        if not isinstance(value, dict):
            self._no_key(value, node.attr)
        return self._key(value, node.attr)

    def _eval_subscript(self, node: ast.Subscript) -> Any:
        value = self._eval(node.value)
        if isinstance(node.slice, ast.Slice):
            return self._slice(value, node.slice)
        key = self._eval(node.slice)
        if isinstance(value, dict):
            if not isinstance(key, str):
                raise WrongType(f"the key of an object is a text, not {kind_of(key)}")
            return self._key(value, key)
        if not isinstance(value, list | tuple | str):
            self._no_key(value, key)
        if not isinstance(key, int):
            raise WrongType(f"the index of an item is an integer, not {kind_of(key)}")
        try:
            return value[key]
        except IndexError:
            raise Absent(f"there is no item {key}; there are {len(value)}") from None

    def _key(self, value: dict[str, Any], key: str) -> Any:
        self.fuel.spend(len(key) // CHARACTERS)
        if key not in value:
            if isinstance(value, Namespace):
                raise Absent(f"{value.absence} `{key[:60]}`")
            raise Absent(f"there is no key `{key[:60]}`; there {listing(value)}")
        return value[key]

    def _no_key(self, value: Any, key: Any) -> NoReturn:
        if value is None:
            raise Absent(f"None has no key `{str(key)[:60]}`")
        raise WrongType(f"{kind_of(value)} has no keys")

    def _slice(self, value: Any, node: ast.Slice) -> Any:
        bounds = [None if part is None else self._eval(part) for part in (node.lower, node.upper, node.step)]
        if not isinstance(value, list | tuple | str):
            raise WrongType(f"a slice is of a list or a text, not of {kind_of(value)}")
        if not all(bound is None or isinstance(bound, int) for bound in bounds):
            raise WrongType("the bounds of a slice are integers")
        part = slice(*bounds)
        self.fuel.spend(len(range(*part.indices(len(value)))) // ITEMS)
        return value[part]

    def _eval_list(self, node: ast.List | ast.Tuple) -> list[Any]:
        made: list[Any] = []
        for part in node.elts:
            if isinstance(part, ast.Starred):
                found = items_of(self.fuel, self._eval(part.value), "`*`")
                self.fuel.spend(len(found) // ITEMS)
                made.extend(found)
            else:
                made.append(self._eval(part))
        return made

    def _eval_tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self._eval_list(node))

    def _eval_dict(self, node: ast.Dict) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                found = self._eval(value)
                if not isinstance(found, dict):
                    raise WrongType(f"`**` takes an object, not {kind_of(found)}")
                self.fuel.spend(len(found) // 4)
                made.update(found)
            else:
                made[self._new_key(key)] = self._eval(value)
        return made

    def _new_key(self, node: ast.AST) -> str:
        key = self._eval(node)
        if not isinstance(key, str):
            raise WrongType(f"the key of an object is a text, not {kind_of(key)}")
        self.fuel.spend(len(key) // CHARACTERS)
        return key

    def _eval_joinedstr(self, node: ast.JoinedStr) -> str:
        parts = [to_text(self.fuel, self._eval(part)) for part in node.values]
        length = sum(map(len, parts))
        require_text(length)
        self.fuel.spend(length // CHARACTERS)
        return "".join(parts)

    def _eval_formattedvalue(self, node: ast.FormattedValue) -> str:
        value = self._eval(node.value)
        if node.conversion == _REPRESENTATION:
            self.fuel.weigh(value, items=4, characters=64)
            value = repr(value)
            require_text(len(value))
        layout = "" if node.format_spec is None else self._eval(node.format_spec)
        if not layout:
            return to_text(self.fuel, value)
        if not isinstance(value, int | float | str) or not _FORMAT.fullmatch(layout):
            raise WrongType("a number or a text is formatted by a width and places of up to three digits, such as `:>8.2f`")
        self.fuel.spend(4 + (len(value) // CHARACTERS if isinstance(value, str) else 0))
        return format(value, layout)

    def _eval_call(self, node: ast.Call) -> Any:
        assert isinstance(node.func, ast.Name)
        name, arguments = node.func.id, node.args
        if name == "default":
            found, value = self._find(arguments[0])
            return value if found else self._eval(arguments[1])
        if name == "has":
            return self._find(arguments[0])[0]
        if name in ("any", "all") and isinstance(arguments[0], ast.GeneratorExp):
            # Python's stop at the first item that decides.
            return self._in_scope(arguments[0].generators, any if name == "any" else all, arguments[0].elt)
        self.fuel.spend(2)
        named = {str(keyword.arg): self._eval(keyword.value) for keyword in node.keywords}
        return FUNCTIONS[name].run(self.fuel, *map(self._eval, arguments), **named)

    def _find(self, node: ast.AST) -> tuple[bool, Any]:
        """Whether there is what a node reads, and its value."""
        names = self.names
        try:
            return True, self._eval(node)
        except Absent:
            self.fuel.spend(8)  # An error takes as long, with its words.
            self.failed = None
            self.names = names
            return False, None

    def _eval_listcomp(self, node: ast.ListComp | ast.GeneratorExp) -> list[Any]:
        made: list[Any] = self._in_scope(node.generators, list, node.elt)
        return made

    def _eval_dictcomp(self, node: ast.DictComp) -> dict[str, Any]:
        made: dict[str, Any] = self._in_scope(node.generators, dict, node.key, node.value)
        return made

    def _in_scope(self, generators: Sequence[ast.comprehension], collect: Callable[..., Any], *made: ast.AST) -> Any:
        """Collect what is made in each round of a comprehension, whose names are seen in it alone."""
        # As in Python, the first list is looked at outside.
        first = self._items(generators[0].iter)
        outside = self.names
        self.fuel.spend(len(outside) // ITEMS)
        self.names = dict(outside)
        try:
            rounds = self._rounds(generators, first)
            if len(made) == 1:
                return collect(self._eval(made[0]) for _ in rounds)
            return collect((self._new_key(made[0]), self._eval(made[1])) for _ in rounds)
        finally:
            self.names = outside

    def _rounds(self, generators: Sequence[ast.comprehension], values: Sequence[Any]) -> Iterator[None]:
        generator, rest = generators[0], generators[1:]
        for value in values:
            self.fuel.spend(1)
            self._bind(generator.target, value)
            if all(self._eval(condition) for condition in generator.ifs):
                if rest:
                    yield from self._rounds(rest, self._items(rest[0].iter))
                else:
                    yield

    def _items(self, node: ast.AST) -> Sequence[Any]:
        return items_of(self.fuel, self._eval(node), "`for`")

    def _bind(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.names[target.id] = value
            return
        assert isinstance(target, ast.Tuple | ast.List)
        if not isinstance(value, list | tuple | str | dict) or len(value) != len(target.elts):
            raise WrongType(f"`for` sets {len(target.elts)} names, and an item is not a list of that length")
        for part, item in zip(target.elts, value, strict=True):
            self.fuel.spend(1)
            self._bind(part, item)


_HANDLERS: dict[type[ast.AST], Callable[[_Evaluator, Any], Any]] = {
    ast.Attribute: _Evaluator._eval_attribute,
    ast.BinOp: _Evaluator._eval_binop,
    ast.BoolOp: _Evaluator._eval_boolop,
    ast.Call: _Evaluator._eval_call,
    ast.Compare: _Evaluator._eval_compare,
    ast.Constant: _Evaluator._eval_constant,
    ast.Dict: _Evaluator._eval_dict,
    ast.DictComp: _Evaluator._eval_dictcomp,
    ast.FormattedValue: _Evaluator._eval_formattedvalue,
    ast.GeneratorExp: _Evaluator._eval_listcomp,
    ast.IfExp: _Evaluator._eval_ifexp,
    ast.JoinedStr: _Evaluator._eval_joinedstr,
    ast.List: _Evaluator._eval_list,
    ast.ListComp: _Evaluator._eval_listcomp,
    ast.Name: _Evaluator._eval_name,
    ast.Subscript: _Evaluator._eval_subscript,
    ast.Tuple: _Evaluator._eval_tuple,
    ast.UnaryOp: _Evaluator._eval_unaryop,
}
"""What evaluates each kind of node. `parse` lets no other through."""
