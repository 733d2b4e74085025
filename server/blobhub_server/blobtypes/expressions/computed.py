"""Values of documents that are evaluated: expressions, and templates, which are texts with expressions in them.

    {"type": "expression", "expression": "steps.fetch.body.total * 1.2"}
    {"type": "template", "template": "Dear {{ input.name }}"}

A template that is nothing but one `{{ … }}` has that expression's value, whatever its type; any other one is a text. Plain
values are never interpreted, and neither is what is inside of one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from blobhub_server.blobtypes.expressions.errors import ExpressionError, InvalidSyntax
from blobhub_server.blobtypes.expressions.evaluator import bound_result, evaluate
from blobhub_server.blobtypes.expressions.fuel import CHARACTERS, Fuel, require_text
from blobhub_server.blobtypes.expressions.functions import to_text
from blobhub_server.blobtypes.expressions.source import MAX_LENGTH, NameUse, parse

KINDS = ("expression", "template")
_TOKEN = re.compile(r"""\\.|["'{}]""", re.DOTALL)


def is_computed(value: Any) -> bool:
    """Whether a value of a document is an expression or a template; what only begins like one is plain JSON."""
    kind = value.get("type") if isinstance(value, dict) else None
    return isinstance(kind, str) and kind in KINDS and len(value) == 2 and isinstance(value.get(kind), str)


@dataclass(frozen=True, slots=True)
class Hole:
    """The text of an expression, and the line and the column where it begins in the text around it, from 1."""

    text: str
    line: int = 1
    column: int = 1


@dataclass(frozen=True, slots=True)
class Computed:
    """A value that is evaluated, of the `kind` that its own key has.

    `parts` are its expressions and the texts between them. `unclosed` is where a template has `{{` without its end.
    """

    kind: str
    parts: tuple[str | Hole, ...]
    unclosed: tuple[int, int] | None = None

    @classmethod
    def of(cls, value: Any) -> Computed | None:
        """The computed value that a value of a document is; None for plain JSON, such as what only begins like one."""
        if not is_computed(value):
            return None
        kind = value["type"]
        return cls(kind=kind, parts=(Hole(text=value[kind]),)) if kind == "expression" else _template(value[kind])

    @property
    def holes(self) -> list[Hole]:
        """Its expressions."""
        return [part for part in self.parts if isinstance(part, Hole)]

    @property
    def is_text(self) -> bool:
        """Whether it is a text, whatever its expressions give."""
        return len(self.parts) != 1 or isinstance(self.parts[0], str)

    @property
    def path(self) -> tuple[str, ...]:
        """As of an expression (`Expression.path`). Raises InvalidSyntax."""
        return () if self.is_text else parse(self.holes[0].text).path

    @property
    def sample(self) -> tuple[Any, ...]:
        """As of an expression (`Expression.sample`). Raises InvalidSyntax."""
        return ("",) if self.is_text else parse(self.holes[0].text).sample

    def names(self) -> Iterator[NameUse]:
        """The names that it reads, with their places in its text, but for those of expressions that cannot be read."""
        for hole in self.holes:
            try:
                uses = parse(hole.text).names
            except InvalidSyntax:
                continue
            for use in uses:
                line, column = _shifted(hole, use.line, use.column)
                yield replace(use, line=line, column=column)

    def flaws(self) -> Iterator[InvalidSyntax]:
        """What is wrong with its text, each with its place there."""
        for hole in self.holes:
            try:
                parse(hole.text)
            except InvalidSyntax as error:
                _move(error, hole)
                yield error
        if self.unclosed is not None:
            yield InvalidSyntax("has {{ without }}", line=self.unclosed[0], column=self.unclosed[1])


def evaluate_computed(computed: Computed, names: Mapping[str, Any], fuel: Fuel, *, bounded: Collection[Any] = ()) -> Any:
    """The value of a computed value over names, as `evaluate` has it. Raises ExpressionError."""
    for error in computed.flaws() if computed.unclosed else ():
        raise error
    if not computed.is_text:
        return _evaluated(computed.holes[0], names, fuel, bounded)
    texts = [part if isinstance(part, str) else _text(part, names, fuel) for part in computed.parts]
    length = sum(map(len, texts))
    fuel.spend(length // CHARACTERS)
    require_text(length)
    return bound_result("".join(texts), (), fuel)


def _text(hole: Hole, names: Mapping[str, Any], fuel: Fuel) -> str:
    """The value of an expression, as `str` has it."""
    return to_text(fuel, _evaluated(hole, names, fuel, ()))


def _evaluated(hole: Hole, names: Mapping[str, Any], fuel: Fuel, bounded: Collection[Any]) -> Any:
    try:
        return evaluate(parse(hole.text), names, fuel, bounded=bounded)
    except ExpressionError as error:
        _move(error, hole)
        raise


def _move(error: ExpressionError, hole: Hole) -> None:
    """Have an error tell its place in the text around its expression."""
    if error.line:
        error.line, error.column = _shifted(hole, error.line, error.column)


def _shifted(hole: Hole, line: int, column: int) -> tuple[int, int]:
    return line + hole.line - 1, column + (hole.column - 1 if line == 1 else 0)


def _template(text: str) -> Computed:
    """The parts of a template's text."""
    parts, end = list[str | Hole](), 0
    line, before = 1, -1  # of the place that was looked at last: its line, and where the line before it ended
    while (start := text.find("{{", end)) >= 0:
        begin = start + 2
        line += text.count("\n", end, begin)
        before = max(before, text.rfind("\n", end, begin))
        closing = _closing(text, begin)
        if closing < 0:
            return Computed(kind="template", parts=(*parts, text[end:]), unclosed=(line, start - before))
        if start > end:
            parts.append(text[end:start])
        parts.append(Hole(text=text[begin:closing], line=line, column=begin - before))
        line += text.count("\n", begin, closing)
        before = max(before, text.rfind("\n", begin, closing))
        end = closing + 2
    if end < len(text) or not parts:
        parts.append(text[end:])
    return Computed(kind="template", parts=tuple(parts))


def _closing(text: str, begin: int) -> int:
    """Where the `}}` is that ends an expression; -1 for nowhere. Braces in its texts, and of its objects, end nothing."""
    quote, depth = "", 0
    for token in _TOKEN.finditer(text, begin, begin + MAX_LENGTH + 2):
        mark = token[0]
        if quote:
            quote = "" if mark == quote else quote
        elif mark in "\"'":
            quote = mark
        elif mark == "{":
            depth += 1
        elif mark == "}" and depth:
            depth -= 1
        elif mark == "}":
            if text.startswith("}}", token.start()):
                return token.start()
            break
    return text.find("}}", begin)  # It is no expression, or too long for one; the nearest end says so at the right place.
