"""Whatever any way in accepts, every way out delivers. Ways are found by reflection: one that is not tried fails."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import acme
import flows
import grpc
import pytest
import schedules
import tasks
from acme import DRAFT
from blobhub.v1 import definition_pb2, task_pb2
from blobhub_client import get_value, set_value
from blobhub_server.workflow.values import unwrap
from calling import METHODS, ask, request_of, send
from exact import EDGES, INVALID, LARGE, REFUSED, REFUSED_VALUES, nested, same, values
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from hypothesis import example, given, settings
from methods import served_methods
from scale import SHARED_FIXTURES, scaled
from served import Api
from signals import waiting

THERE = f"{schedules.DRAFT}/there"
WAYS_IN = {
    "CompleteTask result",
    "CheckDefinition content.components.ports.value",
    "CreateCredential body",
    "CreateMetadata value",
    "CreateSchedule spec.input_data.value",
    "PutDefinition content.components.ports.value",
    "PutSessionObject value",
    "RunExecution spec.input_data.value",
    "SendSignal value",
    "SignalExecution value",
    "StartExecution spec.input_data.value",
    "UpdateCredential body",
    "UpdateMetadata value",
    "UpdateSchedule spec.input_data.value",
}
NOT_TAKEN_IN = {
    "PreviewSchedule spec.input_data.value": "a preview is about times, and looks at no inputs",
    **dict.fromkeys(("PutModel content", "UploadModel chunk"), "bytes of a file, which are no values"),
    **dict.fromkeys(
        (f"{method} inputs.{kind}" for method in ("Infer", "StreamInfer") for kind in ("raw", "texts")),
        "items of tensors, which are no values",
    ),
}
WAYS_OUT = {
    "CreateMetadata record.value",
    "GetDefinition content.components.ports.value",
    "GetExecution execution.input_data.value",
    "GetExecution execution.result",
    "GetMetadata record.value",
    "GetSchedule schedule.spec.input_data.value",
    "GetSessionObject session_object.value",
    "LeaseTasks tasks.input",
    "ListEvents events.flow_exited.result",
    "ListEvents events.processor_output.value",
    "ListExecutions executions.result",
    "ListMetadata records.value",
    "ResolveMetadata resolved.record.value",
    "RunExecution events.flow_exited.result",
    "RunExecution events.processor_output.value",
    "RunExecution execution.result",
    "UpdateMetadata record.value",
    "WatchExecution events.flow_exited.result",
    "WatchExecution events.processor_output.value",
    "WatchSession events.flow_exited.result",
    "WatchSession events.processor_output.value",
}
LEFT_OUT = {
    **dict.fromkeys(
        (
            f"{verb}Schedule schedule.spec.input_data.value"
            for verb in ("Create", "Disable", "Enable", "Pause", "Reassign", "Resume", "Update")
        ),
        "the same as GetSchedule answers",
    ),
    **dict.fromkeys(
        (
            *(
                f"{method} events.{event}.failure.details"
                for method in ("ListEvents", "RunExecution", "WatchExecution", "WatchSession")
                for event in (
                    *("flow_ending", "flow_error", "processor_error", "processor_retrying", "scope_ending", "scope_exited"),
                )
            ),
            *(f"{verb}Execution execution.failure.details" for verb in ("Get", "Run", "Start", "Stop")),
            "ListExecutions executions.failure.details",
        ),
        "what a component tells of its failure, 16 KiB at most; it is in test_error_output.py",
    ),
    "ListSchedules schedules.spec.input_data.value": "the same as GetSchedule answers",
    "DownloadModel chunk": "bytes of a file, which are no values",
    **dict.fromkeys(
        (f"{method} outputs.{kind}" for method in ("Infer", "StreamInfer") for kind in ("raw", "texts")),
        "items of tensors, which are no values",
    ),
    "ListExecutions executions.input_data.value": "GetExecution alone has what was given",
    "ListSessionObjects session_objects.value": "lists leave values out",
    "PutSessionObject session_object.value": "who has put it has it",
    "RunExecution execution.input_data.value": "GetExecution alone has what was given",
    "StartExecution execution.input_data.value": "GetExecution alone has what was given",
    "StartExecution execution.result": "an execution that begins has no result",
    "StopExecution execution.input_data.value": "GetExecution alone has what was given",
    "StopExecution execution.result": "an execution with a result has ended, and is not stopped",
}


def carriers(message: Descriptor, path: str = "", within: tuple[str, ...] = ()) -> Iterator[str]:
    """The fields of a message, and of those within it, that carry values or bytes."""
    for field in message.fields:
        inner, at = field.message_type, f"{path}{field.name}"
        if inner is not None and inner.full_name == "google.protobuf.Any":
            continue  # an error's details, or the response of an operation, whose messages are looked at by themselves
        carries = inner is not None and inner.full_name in ("google.protobuf.Value", "google.protobuf.Struct")
        if carries or field.type == FieldDescriptor.TYPE_BYTES:
            yield at
        elif inner is not None and inner.full_name not in within:
            yield from carriers(inner, f"{at}.", (*within, inner.full_name))


def test_every_way_in_and_out_is_tried_or_said_to_have_no_value() -> None:
    assert {f"{method.name} {path}" for method in served_methods() for path in carriers(method.input)} == WAYS_IN | (
        NOT_TAKEN_IN.keys()
    )
    found = {f"{method.name} {path}" for method in served_methods() for path in carriers(method.output)}
    assert found == WAYS_OUT | LEFT_OUT.keys()
    assert not WAYS_OUT & LEFT_OUT.keys()


def places(message: Message, path: str) -> Iterator[tuple[Message, str]]:
    """Each message that the last name of a path is a field of."""
    name, _, rest = path.partition(".")
    if not rest:
        yield message, name
        return
    inner = getattr(message, name)
    if isinstance(inner, Message):
        if message.HasField(name):
            yield from places(inner, rest)
        return
    for item in inner:
        yield from places(item, rest)


def values_at(message: Message, path: str) -> list[Any]:
    return [
        get_value(*place)
        for place in places(message, path)
        if place[0].HasField(place[1]) or getattr(place[0], f"{place[1]}_json")
    ]


def definition() -> str:
    """The input is emitted, and is the result."""
    parts = [
        flows.component("start", "flow.start"),
        flows.value("given", "given", persistence="execution"),
        flows.component("script", "logic.code", code="emit_output(inputs.given)"),
        flows.component("end", "flow.end"),
    ]
    joined = [flows.control("start", "script"), flows.control("script", "end", "success")]
    joined += [flows.data("given", "value", "script", "given"), flows.data("given", "value", "end", "value")]
    return flows.document(parts, joined)


class Ways:
    """The ways in and out of a server, for one session."""

    def __init__(self, api: Api, session_id: str, credential_id: str) -> None:
        self._api = api
        self._session_id = session_id
        content = {"type": "workflow_definition", "version": "1.0.1", "components": [], "connections": []}
        typed = ParseDict(content, definition_pb2.WorkflowDefinition())
        kept = typed.components.add(id="kept", category="data", type="data.value", name="kept")
        kept.ports.add(category="data_output", route="value")
        typed.components.add(id="start", category="flow", type="flow.start", name="start")
        spec = {"definition": "workflow", "input_data": [{"alias": "given"}]}
        self._requests: dict[str, dict[str, Any]] = {
            "CheckDefinition": {"revision": DRAFT, "content": typed},
            "CompleteTask": {},
            "CreateCredential": {"parent": "acme", "type": "aws"},
            "CreateMetadata": {"parent": DRAFT},
            "CreateSchedule": {"revision": schedules.DRAFT, "spec": schedules.ONCE | {"input_data": [{"alias": "given"}]}},
            "PutDefinition": {"revision": DRAFT, "alias": "typed", "content": typed},
            "PutSessionObject": {"session": session_id, "alias": "object"},
            "RunExecution": {"session": session_id, "spec": spec},
            "SendSignal": {"blob": "acme/pipeline", "name": "go"},
            "SignalExecution": {"name": "go"},
            "StartExecution": {"session": session_id, "spec": spec},
            "UpdateCredential": {"credential": credential_id, "update_mask": {"paths": ["body"]}},
            "UpdateMetadata": {"parent": DRAFT, "key": "there"},
            "UpdateSchedule": {"schedule": THERE, "spec": {"input_data": [{"alias": "given"}]}},
        }
        self.delivered: set[str] = set()
        self._signalled = ""
        self._lease = ""

    async def put(self, way: str, form: Any) -> list[Any] | None:
        """Put in a Value or JSON text. The answers, or None where it is refused, as a wrong argument or a problem."""
        name, path = way.split()
        method = METHODS[name]
        request = request_of(method, **self._requests[name])
        if name in ("CreateCredential", "CreateSchedule"):
            request.alias = f"a{uuid.uuid4().hex[:20]}"
        if name == "CreateMetadata":
            request.key = uuid.uuid4().hex
        if name in ("SendSignal", "SignalExecution"):
            started = await ask(self._api, "StartExecution", session=self._session_id, spec={"definition": "waiting"})
            self._signalled = started.execution.id
        if name == "SignalExecution":
            request.execution = self._signalled
        if name == "CompleteTask":
            request.lease = self._lease = self._lease or (await self._leased(0)).lease
        ((message, field),) = list(places(request, path))[:1]
        if field == "body":
            if isinstance(form, str):
                message.body_json = f'{{"v":{form}}}'
            else:
                message.body.fields["v"].CopyFrom(form)
        elif isinstance(form, str):
            setattr(message, f"{field}_json", form)
        else:
            getattr(message, field).CopyFrom(form)
        try:
            answers = await send(self._api, method, request)
        except grpc.aio.AioRpcError as error:
            if error.code() != INVALID:
                raise AssertionError(f"{way}: {error.code()} {error.details()}") from error
            return None
        if name == "CompleteTask":
            self._lease = ""
        return None if name == "CheckDefinition" and not answers[0].runnable else answers

    def look(self, name: str, answers: list[Any], value: Any) -> None:
        """Note which ways out of a method have delivered a value."""
        for way in WAYS_OUT:
            method, path = way.split()
            expected = unwrap(value) if path.endswith(("result", "processor_output.value", "tasks.input")) else value
            if method == name and any(same(expected, found) for answer in answers for found in values_at(answer, path)):
                self.delivered.add(way)

    async def read(self, name: str, value: Any, **fields: Any) -> None:
        method = METHODS[name]
        self.look(name, await send(self._api, method, request_of(method, **fields)), value)

    async def try_all(self, value: Any, form: Any) -> set[str]:
        """Put a value in by every way; return those that took it, with every way out of what they took in `delivered`."""
        taken = set()
        for way in sorted(WAYS_IN):
            answers = await self.put(way, form)
            if answers is None:
                continue
            taken.add(way)
            name = way.split()[0]
            self.look(name, answers, value)
            await self._read_what(name, answers, value)
        return taken

    async def _leased(self, value: Any) -> task_pb2.LeasedTask:
        """The task of an execution that is given a value, as its worker gets it."""
        begun = await tasks.start(self._api, self._session_id, value, definition="calls")
        async with tasks.leasing(self._api, maximum_tasks=1000) as leases:
            while (leased := await leases.next()).task.execution_id != begun.id:
                pass
        return leased

    async def _read_what(self, name: str, answers: list[Any], value: Any) -> None:
        match name:
            case "PutSessionObject":
                await self.read("GetSessionObject", value, session=self._session_id, alias="object")
            case "CompleteTask":
                leased = await self._leased(value)
                self.look("LeaseTasks", [task_pb2.LeaseTasksResponse(tasks=[leased])], value)
                await ask(self._api, "CompleteTask", lease=leased.lease)
            case "PutDefinition":
                await self.read("GetDefinition", value, definition=f"{DRAFT}/typed")
            case "CreateMetadata":
                key = answers[0].record.key
                await self.read("GetMetadata", value, parent=DRAFT, key=key)
                await self.read("ListMetadata", value, parent=DRAFT, key_prefix=key)
                await self.read("ResolveMetadata", value, revision=DRAFT, keys=[key])
                await ask(self._api, "DeleteMetadata", parent=DRAFT, key=key)
            case "CreateSchedule":
                made = answers[0].schedule
                await self.read("GetSchedule", value, schedule=made.id)
                await ask(self._api, "DeleteSchedule", schedule=made.id)
            case "UpdateSchedule":
                await self.read("GetSchedule", value, schedule=THERE)
            case "CreateCredential":
                await ask(self._api, "DeleteCredential", credential=answers[0].credential.id)
            case "SendSignal" | "SignalExecution":
                self._signalled = getattr(answers[0], "execution_id", self._signalled)
                watch = METHODS["WatchExecution"]
                events = await send(self._api, watch, request_of(watch, execution=self._signalled))
                assert any(
                    same(unwrap(value), found) for each in events for found in values_at(each, "events.flow_exited.result")
                )
            case "RunExecution":
                ended = answers[-1].execution
                await self.read("GetExecution", value, execution=ended.id)
                await self.read("ListExecutions", value, blob="acme/pipeline", page_size=1)
                await self.read("WatchExecution", value, execution=ended.id, replay_only=True)
                before = answers[0].events[0].session_sequence - 1 if answers[0].events else 0
                watch = {"session": self._session_id, "after_session_sequence": before}
                await self.read("WatchSession", value, **watch, replay_only=True)
                await self.read("ListEvents", value, **watch, page_size=1000)


async def opened(api: Api) -> Ways:
    """The ways of the one session of a server, which examples share."""
    if (await ask(api, "ListOrganizations")).organizations:
        (session,) = (await ask(api, "ListSessions", blob="acme/pipeline")).sessions
        (credential,) = (await ask(api, "ListCredentials", parent="acme")).credentials
        return Ways(api, session.id, credential.id)
    session_id = await api.session(definition())
    await api.put(waiting(), alias="waiting")
    await api.put(tasks.calls(), alias="calls")
    await ask(api, "CreateMetadata", parent=DRAFT, key="there", value_json="0")
    made = await ask(api, "CreateCredential", parent="acme", alias="there", type="aws", body_json='{"v":0}')
    await acme.blob(api, schedules.NIGHTLY, schedules.SCHEDULER)
    await schedules.create(api, "there", schedules.ONCE)
    return Ways(api, session_id, made.credential.id)


def form_of(value: Any, *, text: bool) -> Any:
    """A value as JSON text, or as what the client makes of it."""
    if text:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    request = request_of(METHODS["PutSessionObject"])
    set_value(request, value)
    return request.value_json or request.value


def every_edge(test: Any) -> Any:
    for value in (*EDGES, nested(24), nested(23, objects=True), nested(23, inner="x" * 60_000)):
        test = example(value=value)(test)
    return settings(max_examples=scaled(60, least=3), deadline=None, suppress_health_check=SHARED_FIXTURES)(test)


FORMS = [("sqlite", True), ("postgresql", False), ("sqlite", False), ("postgresql", True)][: scaled(4, least=2)]
"""What a value comes as has nothing to do with what it is stored in, so with less than all four each is tried with one."""


@pytest.mark.parametrize(
    ("database_url", "text"),
    FORMS,
    indirect=["database_url"],
    ids=[f"{kind}-as-text" if text else f"{kind}-as-the-client-does" for kind, text in FORMS],
)
@every_edge
@given(value=values)
async def test_a_value_that_is_taken_is_delivered_by_every_way_out(api: Api, text: bool, value: Any) -> None:
    ways = await opened(api)
    taken = await ways.try_all(value, form_of(value, text=text))
    # A credential's body has its value one level further in, and 16 KiB.
    assert WAYS_IN - taken <= {"CreateCredential body", "UpdateCredential body"}
    assert ways.delivered == WAYS_OUT


@pytest.mark.either_database
@pytest.mark.parametrize("value", LARGE, ids=[str(number) for number in range(len(LARGE))])
async def test_a_value_at_the_bounds_is_delivered_by_every_way_out_of_what_takes_it(api: Api, value: Any) -> None:
    for text in (True, False):
        ways = await opened(api)
        taken = await ways.try_all(value, form_of(value, text=text))
        small = {way for way in WAYS_IN if "Metadata" in way or "Credential" in way}
        expected = {way for way in WAYS_OUT if "Metadata" not in way} | (WAYS_OUT if taken & small else set())
        assert {"PutSessionObject value", "RunExecution spec.input_data.value"} <= taken
        assert expected - ways.delivered <= {
            way for way in WAYS_OUT if "Schedule" in way or ("Definition" in way and way.replace("Get", "Put") not in taken)
        }


@pytest.mark.either_database
async def test_what_is_no_value_is_refused_by_every_way_in(api: Api) -> None:
    ways = await opened(api)
    for form in (*REFUSED, *REFUSED_VALUES):
        assert await ways.try_all(None, form) == set(), str(form)[:80]
    assert ways.delivered == set()
