"""Checks the expressions of a definition: those in the settings of components, and those that are values of their ports."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from blobhub_server.blobtypes.expressions import (
    Computed,
    ExpressionError,
    InvalidSyntax,
    NameUse,
    parse,
    unknown_name,
)
from blobhub_server.workflow.components.contract import Component as ComponentType
from blobhub_server.workflow.components.contract import ComponentKind, ExpressionSetting
from blobhub_server.workflow.definitions.document import DATA_INPUT, Component, Problem, Severity
from blobhub_server.workflow.definitions.document import ProblemType as P
from blobhub_server.workflow.definitions.lookup import Lookup, places_of
from blobhub_server.workflow.definitions.references import ROOTS, References, input_names, not_there, roots_seen
from blobhub_server.workflow.values import fits

MAX_EXPRESSIONS = 5_000
MAX_EXPRESSION_CHARACTERS = 256 << 10
"""How many expressions a definition has at most, and of how many characters: to read one takes some microseconds each."""

_KINDS = {
    str: "a text",
    bool: "True or False",
    int: "an integer",
    float: "a number with a fraction",
    list: "a list",
    dict: "an object",
    type(None): "None",
}
"""What a value is, by its type in Python, in words."""


class ExpressionCheck:
    """Looks at all expressions of a definition, component by component, and counts them."""

    def __init__(self, lookup: Lookup, references: References) -> None:
        self._lookup = lookup
        self._references = references
        self._count = 0
        self._characters = 0

    def problems(self, component: Component, type_: ComponentType, path: str) -> Iterator[Problem]:
        """What is wrong with the expressions of a component."""
        names, roots = input_names(self._lookup, component, type_), roots_seen(type_)
        places = places_of(component)
        for setting in type_.expressions(self._lookup.settings[component.id]):
            place = f"{path}.{places.get(setting.input, 'ports')}{setting.within}"
            yield from self._setting(component, setting, names, roots, place)
        for number, port in enumerate(component.ports):
            computed = Computed.of(port.value) if port.has_value else None
            if computed is not None:
                place = f"{path}.ports[{number}].value.{computed.kind}"
                yield from self._port(component, type_, computed, port.route, place)

    def totals(self) -> Iterator[Problem]:
        """That there are more than there may be. They are not read then."""
        if self._is_beyond:
            bound = f"{MAX_EXPRESSIONS} expressions of {MAX_EXPRESSION_CHARACTERS} characters in all"
            message = f"must have at most {bound}, not {self._count} of {self._characters}"
            yield Problem(type=P.INVALID_DOCUMENT, component_id="", path="components", message=message)

    @property
    def _is_beyond(self) -> bool:
        return self._count > MAX_EXPRESSIONS or self._characters > MAX_EXPRESSION_CHARACTERS

    def _count_all(self, texts: Iterable[str]) -> None:
        for text in texts:
            self._count += 1
            self._characters += len(text)

    def _setting(
        self,
        component: Component,
        setting: ExpressionSetting,
        names: Collection[str],
        roots: Collection[str],
        place: str,
    ) -> Iterator[Problem]:
        """What is wrong with an expression: it is none, or uses names that nobody provides."""
        self._count_all([setting.text])
        if self._is_beyond:
            return
        try:
            expression = parse(setting.text)
        except ExpressionError as error:
            yield _problem(P.INVALID_EXPRESSION, component, place, error)
            return
        yield from self._names(component, expression.names, names, roots, place)
        if setting.decides and expression.never_boolean:
            yield _undecided(component, place)

    def _port(
        self, component: Component, type_: ComponentType, computed: Computed, route: str, place: str
    ) -> Iterator[Problem]:
        """What is wrong with a value of a port that is an expression or a template."""
        self._count_all(hole.text for hole in computed.holes)
        if self._is_beyond:
            return
        if type_.kind is ComponentKind.DATA or route in type_.constants:
            fixed = "holds a value, and gets no control" if type_.kind is ComponentKind.DATA else "is the same for all steps"
            message = f"must be a constant: {route!r} of {type_.type} {fixed}, so nothing evaluates it"
            yield Problem(type=P.TYPE_MISMATCH, component_id=component.id, path=place, message=message)
            return
        flaws = list(computed.flaws())
        for flaw in flaws:
            yield _problem(P.INVALID_EXPRESSION, component, place, flaw)
        yield from self._names(component, computed.names(), (), ROOTS, place)
        needed = next((p.value_type for p in type_.ports if (p.category, p.route) == (DATA_INPUT, route)), "")
        for sample in () if flaws else computed.sample:
            if not fits(sample, needed):
                message = f"{route!r} takes a value of type {needed}, and this {computed.kind} gives {_KINDS[type(sample)]}"
                yield Problem(type=P.TYPE_MISMATCH, component_id=component.id, path=place, message=message)

    def _names(
        self,
        component: Component,
        uses: Iterable[NameUse],
        names: Collection[str],
        roots: Collection[str],
        place: str,
    ) -> Iterator[Problem]:
        """The names that nobody provides. A reference is one also where the expression would go on without it."""
        for use in uses:
            if use.name in names:
                continue
            if use.name in roots:
                found = self._references.resolve(use, component.id)
                found = found if isinstance(found, str) else self._references.out_of_sight(component, found)
                if found:
                    yield _problem(P.UNKNOWN_NAME, component, place, _at(use, found))
            elif not use.optional:
                seen = (root for root in roots if root not in names and self._references.is_there(root, component.id))
                known = [*names, *seen]
                unknown = unknown_name(use.name, known, line=use.line, column=use.column)
                message = not_there(use.name)
                yield _problem(P.UNKNOWN_NAME, component, place, _at(use, message) if message else unknown)


def _at(use: NameUse, message: str) -> ExpressionError:
    return InvalidSyntax(message, line=use.line, column=use.column)


def _problem(type_: P, component: Component, place: str, error: ExpressionError) -> Problem:
    return Problem(
        type=type_, component_id=component.id, path=place, message=error.message, line=error.line, column=error.column
    )


def _undecided(component: Component, place: str) -> Problem:
    return Problem(
        type=P.TYPE_MISMATCH,
        component_id=component.id,
        path=place,
        message=f"is never True or False, so the {component.type} fails when it comes to it",
        severity=Severity.WARNING,
    )
