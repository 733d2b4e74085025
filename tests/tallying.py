"""What a tally says of an execution's log, compared with the state that the interpreter makes of the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from blobhub.v1 import event_pb2
from blobhub_server.workflow.components.contract import ComponentKind
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter import ExecutionState, Record
from blobhub_server.workflow.log.encode import encode_records
from blobhub_server.workflow.log.tally import Tally
from interpreting import EXECUTION

GOING_ON = ("running", "waiting", "retrying")


def take(tally: Tally, graph: Graph, records: Iterable[Record]) -> None:
    """Have a tally count records, as the events that watchers get."""
    tally.count(event_pb2.Event.FromString(each.event) for each in encode_records([*records], graph, EXECUTION))


def require_agreement(tally: Tally, graph: Graph, state: ExecutionState) -> None:
    """Both know the same steps that go on. Scopes apart: that one which is left has nothing more to do is no event."""
    open_ = Counter(step.component_id for step in state.open.values())
    told = {id_: sum(counts.states[name] for name in GOING_ON) for id_, counts in tally.components.items()}
    steps = [id_ for id_, node in graph.components.items() if node.kind is not ComponentKind.SCOPE]
    assert {id_: told[id_] for id_ in steps if told.get(id_)} == {id_: open_[id_] for id_ in steps if open_[id_]}
    if state.ended:
        assert not any(told.values())
        assert sum(sum(counts.states.values()) for counts in tally.components.values()) == state.steps
