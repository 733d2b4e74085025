"""The spec of a schedule, between its message and its document."""

from __future__ import annotations

from blobhub.v1 import execution_pb2
from blobhub.v1 import schedule_pb2 as pb

from blobhub_server.blobtypes import json_field
from blobhub_server.rpc.wire import from_duration, to_duration
from blobhub_server.scheduler.rules.document import (
    MAX_INPUT_BYTES,
    CatchUp,
    Input,
    Overlap,
    Repeat,
    ScheduleDocument,
    Target,
)

REPEATS = {pb.SCHEDULE_REPEAT_ONE_TIME: Repeat.ONE_TIME, pb.SCHEDULE_REPEAT_RECURRING_CRON: Repeat.RECURRING_CRON}
_CATCH_UPS = {
    pb.CATCH_UP_POLICY_SKIP: CatchUp.SKIP,
    pb.CATCH_UP_POLICY_LAST: CatchUp.LAST,
    pb.CATCH_UP_POLICY_ALL: CatchUp.ALL,
}
_OVERLAPS = {
    pb.OVERLAP_POLICY_ALLOW: Overlap.ALLOW,
    pb.OVERLAP_POLICY_SKIP: Overlap.SKIP,
    pb.OVERLAP_POLICY_QUEUE_ONE: Overlap.QUEUE_ONE,
    pb.OVERLAP_POLICY_STOP_RUNNING: Overlap.STOP_RUNNING,
}
_ENUMS = {
    name: {member: number for number, member in table.items()}
    for name, table in (("repeat", REPEATS), ("catch_up", _CATCH_UPS), ("overlap", _OVERLAPS))
}
"""The numbers of enums, by field and by what they stand for."""

TEXTS = ("invocation_time", "cron_expression", "timezone", "start_date", "end_date", "description")
FIELDS = tuple(field.name for field in pb.ScheduleSpec.DESCRIPTOR.fields)


def to_document(spec: pb.ScheduleSpec, actor_id: str) -> ScheduleDocument:
    """What a request says, as an actor's document. Its target is not settled. Raises InvalidValue."""
    target = spec.invocation_target
    return ScheduleDocument(
        **{name: getattr(spec, name) for name in TEXTS},
        repeat=REPEATS.get(spec.repeat),
        invocation_target=Target(revision=target.revision, session=target.session, definition=target.definition),
        input_data=tuple(_to_input(item, place) for place, item in enumerate(spec.input_data)),
        catch_up=_CATCH_UPS.get(spec.catch_up),
        catch_up_window=from_duration(spec.catch_up_window) if spec.HasField("catch_up_window") else None,
        overlap=_OVERLAPS.get(spec.overlap),
        jitter=from_duration(spec.jitter) if spec.HasField("jitter") else None,
        actor_id=actor_id,
    )


def _to_input(item: execution_pb2.ExecutionInput, place: int) -> Input:
    """An input. What a text says is checked with the rest of the schedule."""
    if item.WhichOneof("form") == "value_json":
        return Input(alias=item.alias, text=item.value_json, sent_as_text=True)
    _, text = json_field.read(item, "value", MAX_INPUT_BYTES, path=f"spec.input_data[{place}].value")
    return Input(alias=item.alias, text=text, sent_as_text=False)


def to_spec(document: ScheduleDocument) -> pb.ScheduleSpec:
    """A document as it was sent."""
    target = document.invocation_target
    made = pb.ScheduleSpec(
        **{name: getattr(document, name) for name in TEXTS},
        invocation_target=pb.InvocationTarget(
            revision=target.revision, session=target.session, definition=target.definition
        ),
        catch_up_window=None if document.catch_up_window is None else to_duration(document.catch_up_window.total_seconds()),
        jitter=None if document.jitter is None else to_duration(document.jitter.total_seconds()),
    )
    for name, numbers in _ENUMS.items():
        value = getattr(document, name)
        if value is not None:
            setattr(made, name, numbers[value])
    allowance = json_field.ItemAllowance()
    for item in document.input_data:
        added = made.input_data.add(alias=item.alias)
        if item.sent_as_text:
            added.value_json = item.text
        else:
            json_field.fill_text(added, "value", item.text, allowance=allowance)
    return made
