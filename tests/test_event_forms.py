"""Every type of record has a fold and a public form, and there is an event for each."""

from __future__ import annotations

import flows
from blobhub.v1 import event_pb2
from blobhub_server.rpc.wire import stamp
from blobhub_server.workflow.components.awaits import Await, signal, time
from blobhub_server.workflow.interpreter import ENDINGS, RECORD_TYPES, TERMINAL, Record
from blobhub_server.workflow.log.encode import FORMS, encode_records, number_event
from interpreting import EXECUTION, compiled


def test_folds_forms_and_events_are_of_the_same_types() -> None:
    payloads = {field.name for field in event_pb2.Event.DESCRIPTOR.oneofs_by_name["payload"].fields}
    of_executions = {name for name in payloads if name.startswith(("flow_", "processor_", "scope_"))}
    assert RECORD_TYPES.keys() == FORMS.keys()
    assert {name.replace(".", "_") for name in RECORD_TYPES} == of_executions


def test_three_types_end_an_execution() -> None:
    assert {"flow.exited", "flow.error", "flow.stopped"} == ENDINGS
    assert {"completed", "failed", "stopped"} == TERMINAL


def waiting(awaits: Await, until: float | None) -> event_pb2.ProcessorWaiting:
    """How watchers see that a step waits."""
    record = Record(
        type="processor.waiting", at=1.0, step=2, component_id="wait", public={"await": awaits.to_json(), "until": until}
    )
    (encoded,) = encode_records([record], compiled(flows.delay(1)), EXECUTION)
    numbered = number_event(encoded, event_id="i", session_sequence=1, execution_sequence=1, at=stamp(1.0))
    event = event_pb2.Event.FromString(numbered)
    assert (event.id, event.session_sequence, event.execution_id, event.type) == ("i", 1, EXECUTION.id, record.type)
    assert event.WhichOneof("payload") == "processor_waiting"
    return event.processor_waiting


def test_a_wait_shows_its_time_and_its_signal() -> None:
    shown = waiting(time(2), 3.0)
    assert shown.wake_time.seconds == 3
    assert not shown.HasField("signal")
    shown = waiting(signal("go", "mine"), None)
    assert (shown.signal.name, shown.signal.key) == ("go", "mine")
    assert not shown.HasField("wake_time")
