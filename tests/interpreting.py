"""Drives the interpreter in tests, as a runtime does."""

from __future__ import annotations

from collections import Counter
from typing import Any

from blobhub_server.workflow.components.contract import Outcome
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.definitions.check import check
from blobhub_server.workflow.definitions.document import parse
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter import (
    Completion,
    Continue,
    ExecutionState,
    Record,
    Started,
    Wait,
    advance,
    todo,
)

REGISTRY = ComponentRegistry.load()
TERMINAL = {"flow.exited", "flow.error", "flow.stopped"}


def compiled(document: str, registry: ComponentRegistry = REGISTRY) -> Graph:
    definition = parse(document.encode())
    assert check(definition, registry) == []
    return Graph.compile(definition, registry)


class Run:
    """Drives the interpreter as a runtime does, but in one's own time."""

    def __init__(self, graph: Graph, *, step_limit: int = 10_000, session: dict[str, Any] | None = None) -> None:
        self.graph = graph
        self.state = ExecutionState(step_limit=step_limit)
        self.session = session or {}
        self.now = 0.0
        self.records: list[Record] = []

    def tell(self, happening) -> list[Record]:
        made = self._turn(happening)
        while self.state.runnable:
            made = self._turn(Continue())
        return made

    def _turn(self, happening) -> list[Record]:
        """A turn that is kept."""
        turn = advance(self.graph, self.state, [happening], now=self.now, session=self.session)
        self.state, self.session = turn.state, turn.session
        self.records += turn.records
        return turn.records

    def start(self, **inputs: Any) -> Run:
        self.tell(Started(inputs))
        return self

    def pending(self) -> list[Any]:
        return todo(self.graph, self.state, self.now)

    def finish(self, outcome=lambda command: Outcome(route="success"), pick=lambda commands: commands[0]) -> Run:
        """Do what is asked for until nothing is."""
        while commands := self.pending():
            command = pick(commands)
            if isinstance(command, Wait):
                assert command.until is not None, "nobody brings about what is waited for"
                self.now = max(self.now, command.until)
                self.tell(Completion(step=command.step, attempt=command.attempt))
            else:
                self.tell(Completion(step=command.step, attempt=command.attempt, result=outcome(command), elapsed=0.1))
        return self

    @property
    def types(self) -> list[str]:
        return [record.type for record in self.records]

    def exits(self) -> Counter:
        return Counter(
            (record.component_id, record.public["route"]) for record in self.records if record.type == "processor.exited"
        )
