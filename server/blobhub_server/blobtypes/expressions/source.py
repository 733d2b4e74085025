"""Reads the text of an expression: its syntax, which of Python's it may use, and the names that it needs."""

from __future__ import annotations

import ast
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from blobhub_server.blobtypes.expressions.errors import InvalidSyntax
from blobhub_server.blobtypes.expressions.fuel import MAX_BITS
from blobhub_server.blobtypes.expressions.functions import FORMS, FUNCTIONS

MAX_LENGTH = 1_000
"""Characters of a text. Python reads one in up to three microseconds, and looking at what it read takes as long."""
MAX_DEPTH = 80
"""How deep operators, calls and brackets may nest. Evaluating takes five of Python's thousand frames for each."""

MAX_LOOPS = 4
"""How many `for` one comprehension has. Each item is handed through all of them."""

_COST = 4
"""Units for reading one node. A cached expression is paid for too: the price depends on no cache."""
_MAX_CACHED_NODES = 40_000
"""How many nodes of parsed expressions are cached, of some 600 bytes each."""

_ALLOWED = frozenset(
    {
        ast.Attribute, ast.BinOp, ast.BoolOp, ast.Call, ast.Compare, ast.Constant, ast.Dict, ast.DictComp,
        ast.FormattedValue, ast.GeneratorExp, ast.IfExp, ast.JoinedStr, ast.List, ast.ListComp, ast.Name, ast.Subscript,
        ast.Tuple, ast.UnaryOp,
    }
)  # fmt: skip
_REFUSED = {
    ast.Lambda: "there is no lambda",
    ast.NamedExpr: "`:=` sets a name, and an expression sets none",
    ast.Set: "there are no sets; write a list",
    ast.SetComp: "there are no sets; write a list",
    ast.Await: "nothing can be awaited",
    ast.Yield: "nothing can be yielded",
    ast.YieldFrom: "nothing can be yielded",
}
_NEVER_BOOLEAN = (ast.JoinedStr, ast.List, ast.ListComp, ast.Dict, ast.DictComp, ast.Tuple)
_GIVEN: tuple[tuple[frozenset[str], Any], ...] = (
    (frozenset({"str", "lower", "upper", "strip", "join", "replace"}), ""),
    (frozenset({"bool", "any", "all", "has", "contains", "startswith", "endswith"}), True),
    (frozenset({"sorted", "range", "keys", "values", "items", "split"}), []),
    (frozenset({"len", "int"}), 0),
    (frozenset({"float"}), 0.5),
)
"""A value of the type that functions give, whatever they are given."""
_SAMPLES: dict[type[ast.AST], tuple[Any, ...]] = {
    ast.JoinedStr: ("",),
    ast.List: ([],),
    ast.ListComp: ([],),
    ast.Tuple: ([],),
    ast.Dict: ({},),
    ast.DictComp: ({},),
    ast.Compare: (True,),
}
"""A value of the type that kinds of nodes give."""
_ON_BOOLEANS = (ast.BitAnd, ast.BitOr, ast.BitXor)


@dataclass(frozen=True, slots=True)
class NameUse:
    """A name that an expression reads, where, from 1, and whether it goes on without it (`default`, `has`).

    `path` are the constant keys that are read below it: `fetch` and `body` in `steps.fetch["body"]`.
    """

    name: str
    line: int
    column: int
    optional: bool
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Places:
    """Turns places in a text without its first blanks into places in the text."""

    lines: list[str]
    above: int
    before: int

    def of(self, node: ast.AST) -> tuple[int, int]:
        """Line and column of a node. Python counts bytes, and people letters."""
        number = min(max(getattr(node, "lineno", 1), 1), len(self.lines))
        column = len(self.lines[number - 1].encode()[: max(getattr(node, "col_offset", 0), 0)].decode(errors="ignore"))
        return self.at(number, column + 1)

    def at(self, line: int, column: int) -> tuple[int, int]:
        """A line and a column, both from 1; what is beyond the text is taken for its end."""
        line = min(max(line, 1), len(self.lines))
        column = min(max(column, 1), len(self.lines[line - 1]) + 1)
        return line + self.above, column + (self.before if line == 1 else 0)


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that was read: its tree of so many nodes, the names that it reads, and where in its text things are."""

    text: str
    tree: ast.expr
    names: tuple[NameUse, ...]
    nodes: int
    places: Places

    @property
    def cost(self) -> int:
        """What reading it takes, in units of fuel."""
        return self.nodes * _COST

    @property
    def path(self) -> tuple[str, ...]:
        """The name and the constant keys below it that an expression is nothing but; empty for any other."""
        tree, keys = self.tree, list[str]()
        while not isinstance(tree, ast.Name):
            key = _constant_key(tree)
            if key is None:
                return ()
            keys.append(key[1])
            tree = key[0]
        return (tree.id, *reversed(keys))

    @property
    def sample(self) -> tuple[Any, ...]:
        """A value of the type that its own certainly has; empty where that depends on what it reads."""
        match self.tree:
            case ast.Constant(value):
                return (value,)
            case ast.Call(func=ast.Name(name)):
                return next(((value,) for names, value in _GIVEN if name in names), ())
            case ast.UnaryOp(op=op):
                return (True,) if isinstance(op, ast.Not) else ()
            case tree:
                return _SAMPLES.get(type(tree), ())

    @property
    def never_boolean(self) -> bool:
        """True when its value is certainly not a boolean."""
        match self.tree:
            case ast.Constant(value):
                return not isinstance(value, bool)
            case ast.BinOp(op=op):
                return not isinstance(op, _ON_BOOLEANS)
            case ast.UnaryOp(op=op):
                return not isinstance(op, ast.Not)
            case tree:
                return isinstance(tree, _NEVER_BOOLEAN)


# Not `blobhub_server.cache`: threads share this one, and the interpreter, which parses by it, knows no asyncio.
class _ParseCache:
    """An LRU cache of expressions by their text, bounded by their nodes. Threads may share it."""

    def __init__(self, max_nodes: int) -> None:
        self._room = max_nodes
        self._parsed: OrderedDict[str, Expression] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, text: str) -> Expression | None:
        """The expression of a text, if it is cached."""
        with self._lock:
            found = self._parsed.get(text)
            if found is not None:
                self._parsed.move_to_end(text)
            return found

    def put(self, text: str, expression: Expression) -> None:
        """Cache an expression, and evict others until there is room for it."""
        with self._lock:
            if text in self._parsed:
                return
            self._parsed[text] = expression
            self._room -= expression.nodes
            while self._room < 0:
                _, oldest = self._parsed.popitem(last=False)
                self._room += oldest.nodes


_parsed = _ParseCache(_MAX_CACHED_NODES)
_reading = threading.Lock()


def parse(text: str) -> Expression:
    """The expression that a text is. Raises InvalidSyntax, with line and column."""
    found = _parsed.get(text)
    if found is None:
        found = _read(text)
        _parsed.put(text, found)
    return found


def _read(text: str) -> Expression:
    if len(text) > MAX_LENGTH:
        raise InvalidSyntax(f"is longer than {MAX_LENGTH} characters")
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    begun = lines.lstrip(" \t\n\f")
    lead = lines[: len(lines) - len(begun)]
    places = Places(lines=begun.split("\n"), above=lead.count("\n"), before=len(lead) - lead.rfind("\n") - 1)
    reader = _Reader(places)
    tree = _tree(begun, places)
    reader.visit(tree, bound=frozenset(), depth=1, optional=False)
    return Expression(text=text, tree=tree, names=tuple(reader.names), nodes=reader.nodes, places=places)


def _tree(text: str, places: Places) -> ast.expr:
    """Python's tree of an expression."""
    try:
        # Python warns of some slips, such as `\d`, on standard error, where nobody looks who wrote them, and quotes them.
        # The list of filters belongs to the whole process, hence the lock.
        with _reading, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(f"{text}\n", mode="eval").body  # Without an end of the line Python loses the column.
    except SyntaxError as error:
        line, column = places.at(error.lineno or 1, error.offset or 1)
        raise InvalidSyntax(_cause(text, error), line=line, column=column) from None
    except (ValueError, MemoryError, RecursionError, OverflowError):
        line, column = places.at(1, 1)
        raise InvalidSyntax("is not an expression that Python can read", line=line, column=column) from None


def _cause(text: str, error: SyntaxError) -> str:
    if not text.strip():
        return "is empty"
    for foreign, own in (("&&", "and"), ("||", "or")):
        if foreign in text:
            return f"is not a Python expression: `{foreign}` is written `{own}`"
    return f"is not a Python expression: {(error.msg or 'invalid syntax')[:200]}"


class _Reader:
    """Goes over a tree, and refuses what there is not in expressions."""

    def __init__(self, places: Places) -> None:
        self.names: list[NameUse] = []
        self.nodes = 0
        self._places = places

    def visit(self, node: ast.AST, *, bound: frozenset[str], depth: int, optional: bool, path: tuple[str, ...] = ()) -> None:
        """Take one node and all below it. `bound` are the names of comprehensions around it, `path` the keys read of it."""
        self.nodes += 1
        if depth > MAX_DEPTH:
            self._refuse(node, f"nests deeper than {MAX_DEPTH}")
        if type(node) not in _ALLOWED:
            self._refuse(node, _REFUSED.get(type(node), f"there is no {type(node).__name__} in expressions"))
        match node:
            case ast.Name(name):
                self._name(node, name, bound, optional, path)
            case ast.Call():
                self._call(node, bound, depth, optional)
                return
            case ast.ListComp() | ast.GeneratorExp() | ast.DictComp():
                self._comprehension(node, bound, depth, optional)
                return
            case _:
                self._plain(node)
        key = _constant_key(node)
        for number, child in enumerate(_children(node)):
            below = (key[1], *path) if key and number == 0 else ()
            self.visit(child, bound=bound, depth=depth + 1, optional=optional, path=below)

    def _name(self, node: ast.Name, name: str, bound: frozenset[str], optional: bool, path: tuple[str, ...]) -> None:
        if name not in bound:
            line, column = self._places.of(node)
            self.names.append(NameUse(name=name, line=line, column=column, optional=optional, path=path))

    def _plain(self, node: ast.AST) -> None:
        match node:
            case ast.Constant(value) if not (value is None or isinstance(value, bool | int | float | str)):
                self._refuse(node, f"there are no values of type {type(value).__name__}")
            case ast.Constant(int(value)) if value.bit_length() > MAX_BITS:
                self._refuse(node, f"there are no integers of more than {MAX_BITS} bits")
            case ast.BinOp(op=ast.MatMult()):
                self._refuse(node, "there is no `@`")
            case ast.FormattedValue(conversion=97):
                self._refuse(node, "there is no `!a`")
            case ast.Compare(left=left, ops=ops, comparators=others):
                sides = [left, *others]
                for number, op in enumerate(ops):
                    if isinstance(op, ast.Is | ast.IsNot) and not any(map(_singular, sides[number : number + 2])):
                        self._refuse(node, "`is` is for None, True and False; values are compared with `==`")

    def _call(self, node: ast.Call, bound: frozenset[str], depth: int, optional: bool) -> None:
        if isinstance(node.func, ast.Attribute):
            name = node.func.attr
            there = f"write {name}(…)" if name in FUNCTIONS else "functions are called by their names"
            self._refuse(node, f"there are no methods, such as `.{name[:60]}`; {there}")
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in FORMS:
            keywords: frozenset[str] = frozenset()
            least = most = FORMS[name]
        elif name in FUNCTIONS:
            keywords, least, most = FUNCTIONS[name].keywords, FUNCTIONS[name].least, FUNCTIONS[name].most
        else:
            told = f"there is no function `{name[:60]}`" if name else "a function is called by its name"
            self._refuse(node, f"{told}; there are {', '.join(sorted({*FUNCTIONS, *FORMS}))}")
        if any(isinstance(argument, ast.Starred) for argument in node.args):
            self._refuse(node, "a function takes no `*`")
        if not least <= len(node.args) <= most:
            count = f"{least} to {most}" if most > least else str(least)
            self._refuse(node, f"{name} takes {count} argument{'s'[: most > 1]}")
        for keyword in node.keywords:
            if keyword.arg not in keywords:
                self._refuse(node, f"{name} takes no argument `{str(keyword.arg or '**')[:60]}`")
        for number, argument in enumerate([*node.args, *(keyword.value for keyword in node.keywords)]):
            self.visit(argument, bound=bound, depth=depth + 1, optional=optional or (name in FORMS and number == 0))

    def _comprehension(
        self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp, bound: frozenset[str], depth: int, optional: bool
    ) -> None:
        if len(node.generators) > MAX_LOOPS:
            self._refuse(node, f"has more than {MAX_LOOPS} `for` in one")
        for generator in node.generators:
            self.nodes += 1
            if generator.is_async:
                self._refuse(node, "nothing can be awaited")
            self.visit(generator.iter, bound=bound, depth=depth + 1, optional=optional)
            bound |= self._targets(generator.target, depth + 1)
            for condition in generator.ifs:
                self.visit(condition, bound=bound, depth=depth + 1, optional=optional)
        for made in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(made, bound=bound, depth=depth + 1, optional=optional)

    def _targets(self, target: ast.expr, depth: int) -> frozenset[str]:
        """The names that a comprehension sets."""
        self.nodes += 1
        if isinstance(target, ast.Name):
            return frozenset({target.id})
        if not isinstance(target, ast.Tuple | ast.List) or depth > MAX_DEPTH:
            self._refuse(target, "a comprehension sets names, or a few of them in brackets")
        return frozenset().union(*(self._targets(part, depth + 1) for part in target.elts))

    def _refuse(self, node: ast.AST, message: str) -> NoReturn:
        line, column = self._places.of(node)
        raise InvalidSyntax(message, line=line, column=column)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """What is evaluated before a node. A slice, and what is unpacked into a list, are parts of their node."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Slice) and isinstance(node, ast.Subscript):
            yield from ast.iter_child_nodes(child)
        elif isinstance(child, ast.Starred) and isinstance(node, ast.List | ast.Tuple):
            yield child.value
        elif not isinstance(child, ast.operator | ast.unaryop | ast.boolop | ast.cmpop | ast.expr_context):
            yield child


def _constant_key(node: ast.AST) -> tuple[ast.expr, str] | None:
    """What a node reads a key of, and the key, where that is written as it is."""
    match node:
        case ast.Attribute(value=value, attr=key) | ast.Subscript(value=value, slice=ast.Constant(value=str(key))):
            return value, key
    return None


def _singular(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, bool))
