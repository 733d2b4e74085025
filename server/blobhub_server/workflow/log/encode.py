"""Events as watchers get them: a record of the interpreter, or a change of the session, as protobuf bytes.

A record may hold values of a mebibyte, which take milliseconds to encode. So it is encoded before the transaction that logs
it, and what is known there alone, its number and time, is put before it: concatenating two encoded messages of a type merges
them (https://protobuf.dev/programming-guides/encoding/#last-one-wins).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blobhub.v1 import event_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from blobhub_server.blobtypes import json_field
from blobhub_server.rpc.wire import stamp, to_duration
from blobhub_server.workflow.components.awaits import AwaitKind
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter import Record
from blobhub_server.workflow.rules.child import origin_of
from blobhub_server.workflow.rules.execution import Execution


def failure_message(error: Mapping[str, Any], *, allowance: json_field.ItemAllowance | None = None) -> pb.Failure:
    """An error of an execution, or of a component, as its message."""
    made = pb.Failure(
        reason=error["reason"],
        message=error["message"],
        line=error.get("line") or 0,
        component_id=error.get("component_id", ""),
    )
    if error.get("details") is not None:
        json_field.fill(made, "details", error["details"], allowance=allowance)
    return made


Fill = Callable[[pb.Event, Mapping[str, Any], Execution], None]


def _flow_entered(event: pb.Event, public: Mapping[str, Any], execution: Execution) -> None:
    event.flow_entered.definition_id = execution.definition_id
    event.flow_entered.definition_digest = execution.definition_digest
    if (origin := origin_of(execution)) is not None:
        event.flow_entered.parent_execution_id = origin.execution_id
        event.flow_entered.parent_step = origin.step


def _flow_exited(event: pb.Event, public: Mapping[str, Any], execution: Execution) -> None:
    event.flow_exited.steps = public["steps"]
    if "result" in public:
        json_field.fill(event.flow_exited, "result", public["result"])


def _flow_error(event: pb.Event, public: Mapping[str, Any], execution: Execution) -> None:
    event.flow_error.failure.CopyFrom(failure_message(public["error"]))


def _flow_stopping(event: pb.Event, public: Mapping[str, Any], execution: Execution) -> None:
    event.flow_stopping.SetInParent()
    if "until" in public:
        event.flow_stopping.end_time.CopyFrom(stamp(public["until"]))


def _flow_ending(event: pb.Event, public: Mapping[str, Any], execution: Execution) -> None:
    event.flow_ending.SetInParent()
    if "error" in public:
        event.flow_ending.failure.CopyFrom(failure_message(public["error"]))
    if "until" in public:
        event.flow_ending.end_time.CopyFrom(stamp(public["until"]))


def _flow_stopped(event: pb.Event, public: Mapping[str, Any], execution: Execution) -> None:
    event.flow_stopped.SetInParent()


def _flow_signalled(event: pb.Event, public: Mapping[str, Any], execution: Execution) -> None:
    event.flow_signalled.signal.name = public["name"]
    event.flow_signalled.signal.key = public["key"]


def _processor_entered(event: pb.Event, public: Mapping[str, Any], execution: Execution) -> None:
    event.processor_entered.attempt = public["attempt"]


def _processor_exited(event: pb.Event, public: Mapping[str, Any], execution: Execution) -> None:
    event.processor_exited.route = public["route"]
    if public.get("elapsed"):
        event.processor_exited.elapsed.CopyFrom(to_duration(public["elapsed"]))


def _processor_error(event: pb.Event, public: Mapping[str, Any], execution: Execution) -> None:
    event.processor_error.failure.CopyFrom(failure_message(public["error"]))
    event.processor_error.attempt = public["attempt"]


def _processor_output(event: pb.Event, public: Mapping[str, Any], execution: Execution) -> None:
    if "printed" in public:
        event.processor_output.printed = public["printed"]
    else:
        json_field.fill(event.processor_output, "value", public["value"])


def _processor_retrying(event: pb.Event, public: Mapping[str, Any], execution: Execution) -> None:
    event.processor_retrying.attempt = public["attempt"]
    event.processor_retrying.failure.CopyFrom(failure_message(public["error"]))
    event.processor_retrying.retry_time.CopyFrom(stamp(public["until"]))


def _processor_waiting(event: pb.Event, public: Mapping[str, Any], execution: Execution) -> None:
    waiting, details = event.processor_waiting, public["await"]["details"]
    waiting.SetInParent()
    if public["until"] is not None:
        waiting.wake_time.CopyFrom(stamp(public["until"]))
    if public["await"]["kind"] == AwaitKind.SIGNAL:
        waiting.signal.name = details["name"]
        waiting.signal.key = details["key"]
    if public["await"]["kind"] == AwaitKind.CHILD:
        for name, id_ in details.items():
            setattr(waiting.child, name, id_)
    elif public["await"]["kind"] == AwaitKind.TASK:
        waiting.queue = details["queue"]


def _scope_entered(event: pb.Event, public: Mapping[str, Any], execution: Execution) -> None:
    event.scope_entered.activation = public["activation"]
    event.scope_entered.part = public["part"]
    event.scope_entered.round = public["round"]


def _scope_ending(event: pb.Event, public: Mapping[str, Any], execution: Execution) -> None:
    event.scope_ending.activation = public["activation"]
    if "error" in public:
        event.scope_ending.failure.CopyFrom(failure_message(public["error"]))


def _scope_exited(event: pb.Event, public: Mapping[str, Any], execution: Execution) -> None:
    event.scope_exited.activation = public["activation"]
    event.scope_exited.part = public["part"]
    event.scope_exited.round = public["round"]
    if "error" in public:
        event.scope_exited.failure.CopyFrom(failure_message(public["error"]))


FORMS: Mapping[str, Fill] = {
    "flow.entered": _flow_entered,
    "flow.exited": _flow_exited,
    "flow.error": _flow_error,
    "flow.stopping": _flow_stopping,
    "flow.stopped": _flow_stopped,
    "flow.ending": _flow_ending,
    "flow.signalled": _flow_signalled,
    "processor.entered": _processor_entered,
    "processor.exited": _processor_exited,
    "processor.error": _processor_error,
    "processor.output": _processor_output,
    "processor.retrying": _processor_retrying,
    "processor.waiting": _processor_waiting,
    "scope.entered": _scope_entered,
    "scope.ending": _scope_ending,
    "scope.exited": _scope_exited,
}
"""How each type of record is shown to watchers. What it does to the state is in `interpreter/state.py`."""


@dataclass(frozen=True, slots=True)
class EncodedRecord:
    """A record as the log keeps it: `event` is the public event without what `number_event` adds, `record` is JSON text.

    `whose` is the part of the event that says of which execution it is.
    """

    type: str
    at: float
    whose: bytes
    event: bytes
    record: str


# `json.dumps` makes one for each call that does not take its defaults, which takes longer than writing a small record.
_ENCODER = json.JSONEncoder(separators=(",", ":"))


def encode_records(records: Sequence[Record], graph: Graph, execution: Execution) -> list[EncodedRecord]:
    """Records of an execution, encoded but for their places in the log."""
    whose = _whose(execution)
    return [
        EncodedRecord(
            type=record.type,
            at=record.at,
            whose=whose,
            event=_event(record, graph, execution).SerializeToString(),
            record=_ENCODER.encode(record.to_json()),
        )
        for record in records
    ]


def encode_alike(encoded: Sequence[EncodedRecord], execution: Execution) -> list[EncodedRecord]:
    """The records that an execution has in common with another one of the same definition, those of which are encoded."""
    whose = _whose(execution)
    return [EncodedRecord(type=it.type, at=it.at, whose=whose, event=it.event, record=it.record) for it in encoded]


def _whose(execution: Execution) -> bytes:
    event = pb.Event(session_id=execution.session_id, execution_id=execution.id, revision_id=execution.revision_id)
    return event.SerializeToString()


def _event(record: Record, graph: Graph, execution: Execution) -> pb.Event:
    """What of an event is of its record alone."""
    event = pb.Event()
    if record.component_id is not None:
        component = graph.components[record.component_id]
        processor = event.processor
        processor.processor_id = component.id
        processor.processor_type = component.type
        processor.processor_name = component.name
        processor.step = record.step or 0
        processor.attempt = record.attempt or 0
        processor.activation = record.activation
        processor.scope_path.extend(component.scope_path)
    FORMS[record.type](event, record.public, execution)
    return event


def number_event(
    encoded: EncodedRecord, *, event_id: str, session_sequence: int, execution_sequence: int, at: Timestamp
) -> bytes:
    """The event of an encoded record, at its place in the log."""
    head = pb.Event(
        id=event_id,
        session_sequence=session_sequence,
        execution_sequence=execution_sequence,
        type=encoded.type,
        create_time=at,
    )
    return head.SerializeToString() + encoded.whose + encoded.event


def encode_session_event(
    payload: str, fields: dict[str, str], *, event_id: str, session_id: str, session_sequence: int, at: Timestamp
) -> bytes:
    """An event of the session itself, serialized. `payload` is the name of the payload's field, which is its type."""
    event = pb.Event(id=event_id, session_sequence=session_sequence, type=payload, create_time=at, session_id=session_id)
    message = getattr(event, payload)
    message.SetInParent()
    for name, value in fields.items():
        setattr(message, name, value)
    return event.SerializeToString()
