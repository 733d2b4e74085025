"""Drives the interpreter in tests, as a runtime does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import flows
from blobhub_server.workflow.components.awaits import Await, signal
from blobhub_server.workflow.components.contract import Inputs, Outcome, PortSpec, PureComponent
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.definitions.check import check
from blobhub_server.workflow.definitions.document import Severity
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.definitions.reader import parse
from blobhub_server.workflow.interpreter import (
    Completion,
    Continue,
    ExecutionState,
    Record,
    Started,
    Wait,
    advance,
    apply,
    todo,
)
from blobhub_server.workflow.rules.execution import DEFAULT_STEP_LIMIT, Execution

REGISTRY = ComponentRegistry.load()
TERMINAL = {"flow.exited", "flow.error", "flow.stopped"}

EXECUTION = Execution(
    id="e",
    organization_id="o",
    session_id="s",
    blob_id="b",
    revision_id="r",
    definition_blob_id="b",
    definition_id="d",
    definition_alias="workflow",
    definition_digest="",
    cause=None,
    owner=None,
    fence=1,
    actor_id="",
    last_message=0,
    recoveries=0,
    state="running",
    step_limit=10,
    timeout=None,
    result=None,
    failure=None,
    last_execution_sequence=0,
    create_time=datetime(2026, 1, 1, tzinfo=UTC),
    end_time=None,
)
"""An execution's row, before anything has happened to it."""


def replay(graph: Graph, records: Iterable[Record], *, step_limit: int = DEFAULT_STEP_LIMIT) -> ExecutionState:
    """The state that a log leads to, as recovery folds it."""
    state = ExecutionState(step_limit=step_limit)
    for record in records:
        apply(graph, state, record)
    return state


def compiled(document: str, registry: ComponentRegistry = REGISTRY) -> Graph:
    definition = parse(document.encode())
    assert [problem for problem in check(definition, registry) if problem.severity is Severity.ERROR] == []
    return Graph.compile(definition, registry)


class Run:
    """Drives the interpreter as a runtime does, but in one's own time."""

    def __init__(self, graph: Graph, *, step_limit: int = DEFAULT_STEP_LIMIT, session: dict[str, Any] | None = None) -> None:
        self.graph = graph
        self.state = ExecutionState(step_limit=step_limit)
        self.session = session or {}
        self.now = 0.0
        self.records: list[Record] = []
        self.written: dict[str, Any] = {}

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
        self.written |= turn.written
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


class WaitsForSignal(PureComponent):
    """Waits for the signal `go` of a key, for a minute at most where `patient` is not set."""

    type = "test.signalled"
    title = "Signalled"
    ports = (
        PortSpec(category="flow_input", route="in", description="Control enters here."),
        PortSpec(category="data_input", route="key", description="The signal's key.", value_type="text", required=True),
        PortSpec(category="data_input", route="patient", description="True to wait without an end.", value_type="boolean"),
        PortSpec(category="data_output", route="value", description="What came with the signal."),
    )
    routes = ("received", "timeout")

    def run(self, inputs: Inputs) -> Await:
        return signal("go", inputs["key"], None if inputs.get("patient") else 60.0)


def signalled_document(**values: object) -> str:
    """Step 2 waits for a signal, after which the execution ends with what came, or after the time."""
    return flows.document(
        [
            flows.component("start", "flow.start"),
            flows.component("wait", "test.signalled", key="mine", **values),
            flows.component("end", "flow.end"),
            flows.component("late", "flow.end", value="too late"),
        ],
        [
            flows.control("start", "wait"),
            flows.control("wait", "end", "received"),
            flows.control("wait", "late", "timeout"),
            flows.data("wait", "value", "end", "value"),
        ],
    )
