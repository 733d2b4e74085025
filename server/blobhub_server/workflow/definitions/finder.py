"""Finds definitions in revisions; reads, checks and compiles them, and caches them by digest."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from blobhub_server.blobtypes.contract import Contents
from blobhub_server.blobtypes.values import Entry
from blobhub_server.cache import Cache
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import InvalidValue, NotFound
from blobhub_server.turnstile import Party, Turnstile
from blobhub_server.workflow.code.contract import ScriptFlaw, ScriptRunner
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.definitions.examination import Examination, Verdict, examine, verdict_of
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.definitions.process import Examiner
from blobhub_server.workflow.definitions.reader import parse
from blobhub_server.workflow.errors import DefinitionNotRunnable

MAX_WAITING = 64
"""How many documents may wait to be read for calls. Each is in memory, and may have 4 MiB."""

LARGE_BYTES = 32 << 10
"""The size from which on a document is checked in a process of its own: in the server it would contend for the interpreter
for seconds, and make up to 300,000 objects, which the garbage collector goes over."""

_PROBLEM_BYTES, _NODE_BYTES = 100, 512
"""What a problem and a component count as, in bytes of a document: a short document can have very many."""


@dataclass(frozen=True, slots=True)
class CompiledDefinition:
    """What is wrong with a definition, and its graph, where no problem is an error and it was needed."""

    verdict: Verdict
    graph: Graph | None

    def runnable(self) -> Graph:
        """The graph. Raises DefinitionNotRunnable with every error when there is none."""
        if self.graph is None:
            raise DefinitionNotRunnable(self.verdict.violations)
        return self.graph


@dataclass(frozen=True, slots=True)
class Found:
    """A definition that can be run: where it is, and its graph."""

    entry: Entry
    graph: Graph

    def require_inputs(self, aliases: Iterable[str]) -> None:
        """Raise InvalidValue for an input that the definition does not have."""
        unknown = sorted({*aliases} - self.graph.input_aliases)
        if unknown:
            raise InvalidValue("spec.input_data", f"the definition has no input {unknown[0]!r}")


class Definitions:
    """Finds and compiles definitions, each once, in threads of its own, and caches them by digest.

    Whoever checks, stores and reads definitions takes turns at the `turnstile`. What is started does not wait for them.
    """

    def __init__(
        self, db: Database, contents: Contents, registry: ComponentRegistry, scripts: ScriptRunner, examiner: Examiner
    ) -> None:
        """`examiner` is for large documents."""
        self._db = db
        self._contents = contents
        self._registry = registry
        self._scripts = scripts
        self._examiner = examiner
        self._stored: Cache[CompiledDefinition] = Cache(max_count=1024, max_bytes=4 << 20)
        self._checked: Cache[CompiledDefinition] = Cache(max_count=64, max_bytes=1 << 20)
        self._loading = Turnstile(1)
        self.turnstile = Turnstile(1, max_waiting=MAX_WAITING)

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

    async def runnable(self, tx: Transaction, revision_id: str, name_or_id: str) -> Found:
        """A definition as a transaction sees it, to be run. The transaction waits while it is read, unless it is cached.

        Raises NotFound, DefinitionNotRunnable.
        """
        entry = await self.entry(tx, revision_id, name_or_id)
        return Found(entry, (await self.load(entry.digest)).runnable())

    async def load(self, digest: str) -> CompiledDefinition:
        """A stored definition, compiled."""
        return await self._stored.obtain(digest, partial(self._load, digest))

    async def load_started(self, digest: str) -> Graph:
        """The graph of a definition that something was started with, also where a newer check finds an error in it.

        Raises DefinitionNotRunnable where no graph can be made of it.
        """
        compiled = await self.load(digest)
        if compiled.graph is not None:
            return compiled.graph
        document = await self._contents.read(digest)
        try:
            return await self._loading.run((digest, ""), partial(_graph, document, self._registry))
        except Exception:
            return compiled.runnable()

    async def _load(self, digest: str) -> tuple[CompiledDefinition, int]:
        document = await self._contents.read(digest)
        compiled = self._checked.get(digest) or await self._compile(self._loading, (digest, ""), document)
        if compiled.graph is None and compiled.verdict.is_runnable:
            graph = await self._loading.run((digest, ""), partial(_graph, document, self._registry))
            compiled = replace(compiled, graph=graph)
        return compiled, _weight(compiled, document)

    async def check(self, document: bytes, party: Party) -> Verdict:
        """What is wrong with a document, when it is the turn of whoever it is for. Raises Overloaded where too many wait."""
        digest = hashlib.sha256(document).hexdigest()
        found = self._stored.get(digest) or await self._checked.obtain(digest, partial(self._check, document, party))
        return found.verdict

    async def _check(self, document: bytes, party: Party) -> tuple[CompiledDefinition, int]:
        compiled = await self._compile(self.turnstile, party, document)
        return compiled, _weight(compiled, document)

    async def _compile(self, turnstile: Turnstile, party: Party, document: bytes) -> CompiledDefinition:
        """A document, checked, and compiled when no problem is an error. All of it is one turn.

        A large one is checked in a process of its own, and not compiled. This is done in a task of the cache's, which no
        caller cancels; so the turn lasts as long as its threads.
        """
        async with turnstile.turn(party):
            if len(document) > LARGE_BYTES:
                return CompiledDefinition(verdict=await self._examiner.examine(document, self._scripts.read), graph=None)
            examined = await asyncio.to_thread(examine, document, self._registry)
            flaws = await self._scripts.read(examined.scripts) if examined.scripts else {}
            return await asyncio.to_thread(_compiled, examined, self._registry, flaws)


def _weight(compiled: CompiledDefinition, document: bytes) -> int:
    """What keeping a compiled definition counts as. In memory its values take up to 25 times the bytes of its document.

    A component is some ten objects, however short, and each full collection of the garbage collector goes over all of them.
    """
    nodes = len(compiled.graph.components) if compiled.graph is not None else 0
    return len(document) + _PROBLEM_BYTES * len(compiled.verdict.problems) + _NODE_BYTES * nodes


def _graph(document: bytes, registry: ComponentRegistry) -> Graph:
    return Graph.compile(parse(document), registry)


def _compiled(examined: Examination, registry: ComponentRegistry, flaws: Mapping[str, ScriptFlaw]) -> CompiledDefinition:
    verdict = verdict_of(examined.check(registry, flaws))
    if examined.definition is None or not verdict.is_runnable:
        return CompiledDefinition(verdict=verdict, graph=None)
    return CompiledDefinition(verdict=verdict, graph=Graph.compile(examined.definition, registry))
