"""Finds definitions in revisions; reads, checks and compiles them, and caches them by digest."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from blobhub_server.blobtypes.contract import Contents
from blobhub_server.blobtypes.values import Entry
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import NotFound, Violation
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.definitions.check import check
from blobhub_server.workflow.definitions.document import Definition, InvalidDefinition, Problem, ProblemType, Severity, parse
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.errors import DefinitionNotRunnable, InvalidDefinitionContent

_KEPT = 1024
_NEVER_STORED = (ProblemType.INVALID_DOCUMENT, ProblemType.INVALID_EXPRESSION)
"""Problems with which a definition is refused, also in a draft. With others it can be stored, as work that goes on."""


@dataclass(frozen=True, slots=True)
class CompiledDefinition:
    """A definition, what is wrong with it, and, when no problem is an error, its graph."""

    definition: Definition | None
    problems: list[Problem]
    graph: Graph | None

    def runnable(self) -> Graph:
        """The graph. Raises DefinitionNotRunnable with every problem when there is none."""
        if self.graph is None:
            raise DefinitionNotRunnable(violations(self.problems))
        return self.graph


def violations(problems: list[Problem]) -> list[Violation]:
    """Problems as the violations that errors carry."""
    return [Violation(problem.path or problem.component_id, _words(problem)) for problem in problems]


def _words(problem: Problem) -> str:
    place = f"line {problem.line}, column {problem.column}: " if problem.line else ""
    return f"{place}{problem.message}"


@dataclass(frozen=True, slots=True)
class Found:
    """A definition that can be run: where it is, and its graph."""

    entry: Entry
    graph: Graph


class Definitions:
    """Finds and compiles definitions, and caches them by digest."""

    def __init__(self, db: Database, contents: Contents, registry: ComponentRegistry) -> None:
        self._db = db
        self._contents = contents
        self._registry = registry
        self._compiled: OrderedDict[str, CompiledDefinition] = OrderedDict()

    async def find(self, revision_id: str, name_or_id: str) -> Entry:
        """The entry of a definition, by alias or id. Raises NotFound."""
        async with self._db.read() as tx:
            return await self.entry(tx, revision_id, name_or_id)

    async def entry(self, tx: Transaction, revision_id: str, name_or_id: str) -> Entry:
        """The entry of a definition as a transaction sees it, by alias or id. Raises NotFound."""
        entry = await self._contents.find(tx, revision_id, name_or_id)
        if entry is None:
            raise NotFound("definition", name_or_id)
        return entry

    async def load(self, digest: str) -> CompiledDefinition:
        """A stored definition, compiled."""
        known = self._compiled.get(digest)
        if known is None:
            # Reading many expressions takes long, so it holds up nobody else.
            known = await asyncio.to_thread(self.compile, await self._contents.read(digest))
            self._compiled[digest] = known
            if len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        else:
            self._compiled.move_to_end(digest)
        return known

    def compile(self, document: bytes) -> CompiledDefinition:
        """A document, checked, and compiled when nothing is wrong with it."""
        try:
            definition = parse(document)
        except InvalidDefinition as error:
            return CompiledDefinition(definition=None, problems=list(error.problems), graph=None)
        problems = check(definition, self._registry)
        broken = any(problem.severity is Severity.ERROR for problem in problems)
        graph = None if broken else Graph.compile(definition, self._registry)
        return CompiledDefinition(definition=definition, problems=problems, graph=graph)

    def require_storable(self, document: bytes) -> None:
        """Raise InvalidDefinitionContent, with every problem, unless a document is a definition with sound expressions."""
        problems = self.compile(document).problems
        if any(problem.type in _NEVER_STORED for problem in problems):
            told = (*_NEVER_STORED, ProblemType.UNKNOWN_NAME)
            raise InvalidDefinitionContent(violations([problem for problem in problems if problem.type in told]))
