"""ExecutionService on the wire."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC
from functools import partial
from typing import Any, TypeVar

from blobhub.v1 import execution_pb2 as pb

from blobhub_server.blobtypes import json_field, json_text
from blobhub_server.blobtypes.access import Caller, Place, Resolution
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import BlobView, Host, RevisionView, Settlement
from blobhub_server.blobtypes.reference import parse_within
from blobhub_server.db.engine import Transaction
from blobhub_server.db.portion import MAX_PAGE_BYTES
from blobhub_server.errors import BlobHubError, InvalidValue, NotFound
from blobhub_server.ids import canonical_id
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.watch import Idle, check_range, pack
from blobhub_server.rpc.wire import from_duration, repeated, to_timestamp
from blobhub_server.turnstile import off_loop
from blobhub_server.workflow.interpreter import ENDINGS, Record
from blobhub_server.workflow.log.encode import failure_message
from blobhub_server.workflow.log.log import EventLog
from blobhub_server.workflow.log.watching import watch_execution
from blobhub_server.workflow.rules.execution import DEFAULT_STEP_LIMIT, Cause, CauseKind, Execution
from blobhub_server.workflow.rules.session import Session
from blobhub_server.workflow.runtime.contract import Runtime, Start
from blobhub_server.workflow.runtime.inbox import Inbox
from blobhub_server.workflow.services.session import locate_session
from blobhub_server.workflow.store import event as event_store
from blobhub_server.workflow.store import execution as store
from blobhub_server.workflow.store.event import LoggedEvent

StartRequest = pb.StartExecutionRequest | pb.RunExecutionRequest
Answer = TypeVar("Answer", pb.StartExecutionResponse, pb.RunExecutionResponse)

_STATES = {name.removeprefix("EXECUTION_STATE_").lower(): number for name, number in pb.ExecutionState.items() if number}
_NAMES = {number: name for name, number in _STATES.items()}


def to_proto(execution: Execution, *, allowance: json_field.ItemAllowance | None = None) -> pb.Execution:
    """An execution as its message. `allowance` is that of a list, whose results share it."""
    made = pb.Execution(
        id=execution.id,
        session_id=execution.session_id,
        blob_id=execution.blob_id,
        revision_id=execution.revision_id,
        definition_id=execution.definition_id,
        definition_alias=execution.definition_alias,
        definition_digest=execution.definition_digest,
        state=_STATES[execution.state],
        failure=failure_message(execution.failure, allowance=allowance) if execution.failure else None,
        first_execution_sequence=execution.first_execution_sequence,
        last_execution_sequence=execution.last_execution_sequence,
        create_time=to_timestamp(execution.create_time),
        end_time=to_timestamp(execution.end_time) if execution.end_time else None,
        parent_execution_id=execution.parent_id or "",
    )
    if execution.result is not None:
        json_field.fill_text(made, "result", execution.result.decode(), allowance=allowance)
    return made


def to_inputs(given: Mapping[str, Any]) -> Iterator[pb.ExecutionInput]:
    """The values that an execution was given, as messages."""
    allowance = json_field.ItemAllowance()
    for alias, value in given.items():
        made = pb.ExecutionInput(alias=alias)
        json_field.fill(made, "value", value, allowance=allowance)
        yield made


def _answer_with_inputs(execution: Execution, first_record: str) -> bytes:
    """GetExecution's answer, encoded. The first record of its log says what it was given; there is none before it runs."""
    made = to_proto(execution)
    given = Record.from_json(json.loads(first_record)).private["input_data"] if first_record else {}
    made.input_data.extend(to_inputs(given))
    return repeated(1, [made.SerializeToString()])


def _listed(execution: Execution, allowance: json_field.ItemAllowance) -> bytes:
    """An execution of a list, encoded; the results of the list share the allowance."""
    return to_proto(execution, allowance=allowance).SerializeToString()


def _last_message(execution: Execution) -> bytes:
    """What the last message of RunExecution has beside events, encoded."""
    return pb.RunExecutionResponse(execution=to_proto(execution)).SerializeToString()


def _size(execution: Execution) -> int:
    """The bytes of an execution's result."""
    return len(execution.result or b"")


def to_start(call: Call[Session], request: StartRequest, definition: str) -> Start:
    """The start that a request asks for. Raises InvalidValue when its input is too large, or an input has two values."""
    spec = request.spec
    _require_each_once([item.alias for item in spec.input_data])
    given = {
        item.alias: json_field.read(item, "value", path=f"spec.input_data[{place}].value")
        for place, item in enumerate(spec.input_data)
    }
    json_text.require_bounds_of_all("spec.input_data", [text for _, text in given.values()])
    return Start(
        session=call.resource,
        definition=definition,
        input_data={alias: value for alias, (value, _) in given.items()},
        actor_id=call.caller.actor_id,
        cause=Cause(CauseKind.REQUEST, call.idempotency_key) if call.idempotency_key else None,
        timeout=from_duration(spec.timeout) if spec.HasField("timeout") else None,
        step_limit=spec.step_limit or DEFAULT_STEP_LIMIT,
    )


def _require_each_once(aliases: Sequence[str]) -> None:
    """Raise InvalidValue where an alias is there a second time: one of its values would be lost without a word."""
    seen = set[str]()
    for place, alias in enumerate(aliases):
        if alias in seen:
            raise InvalidValue(f"spec.input_data[{place}].alias", f"each input has one value; {alias!r} is there twice")
        seen.add(alias)


def to_filter(request: pb.ListExecutionsRequest, session_id: str) -> store.Filter:
    """Which executions a request asks for."""
    return store.Filter(
        session_id=session_id,
        definition_alias=request.definition_alias,
        state=_NAMES.get(request.state, ""),
        created_after=request.created_after.ToDatetime(UTC) if request.HasField("created_after") else None,
        created_before=request.created_before.ToDatetime(UTC) if request.HasField("created_before") else None,
    )


class ExecutionService:
    """Starts, stops, signals, finds and watches executions."""

    def __init__(self, host: Host, runtime: Runtime, inbox: Inbox, log: EventLog) -> None:
        self._host = host
        self._runtime = runtime
        self._inbox = inbox
        self._log = log

    async def StartExecution(self, request: pb.StartExecutionRequest, call: Call[Session]) -> pb.StartExecutionResponse:
        return await self._start(request, call, pb.StartExecutionResponse)

    async def _start(self, request: StartRequest, call: Call[Session], answer: type[Answer]) -> Answer:
        """Start what the request asks for."""

        settled: set[str] = set()

        async def remember(_: Transaction, execution: Execution) -> Sequence[Settlement]:
            settled.add(execution.id)
            return [call.settlement(answer(execution=to_proto(execution)))]

        definition = await self._definition(request.spec.definition, call)
        start = await off_loop(request.ByteSize(), call.caller.party, partial(to_start, call, request, definition))
        execution = await self._runtime.start(start, remember)
        # When the same request has started it meanwhile, the gate gives the answer that was remembered then.
        call.repeatable = execution.id not in settled
        return answer(execution=to_proto(execution))

    async def _definition(self, reference: str, call: Call[Session]) -> str:
        """The alias or id, in the session's revision, of the definition that a reference leads to. Raises InvalidValue."""
        if "/" not in reference:
            return canonical_id(reference) or reference
        within = parse_within(reference)
        found = await self._host.revisions.locate(within.revision, call.caller)
        if found is None or not isinstance(found.resource, RevisionView) or found.resource.id != call.resource.revision_id:
            message = "names a definition of another revision or blob; only those of the session's can be started here"
            raise InvalidValue("spec.definition", message)
        return within.alias

    async def RunExecution(self, request: pb.RunExecutionRequest, call: Call[Session]) -> AsyncIterator[bytes]:
        answer = pb.RunExecutionResponse
        started = await call.first_answer(lambda: self._start(request, call, answer), answer.FromString)
        head = started.SerializeToString()
        # Concatenating two encoded messages of a type merges them, so the execution is put before the encoded events:
        # https://protobuf.dev/programming-guides/encoding/#last-one-wins
        async for batch in self._watch(call, started.execution.id, 0, replay_only=False):
            tail = b""
            if not isinstance(batch, Idle) and batch[-1].type in ENDINGS:
                ended = await self._runtime.get_ended(started.execution.id)
                head, tail = b"", await off_loop(_size(ended), call.caller.party, partial(_last_message, ended))
            yield head + pack(batch, self._host.clock()) + tail
            head = b""

    async def GetExecution(self, request: pb.GetExecutionRequest, call: Call[Execution]) -> bytes:
        found = call.resource
        async with self._host.db.read() as tx:
            kept = await event_store.first_record(tx, found.id) or ""
        return await off_loop(_size(found) + len(kept), call.caller.party, partial(_answer_with_inputs, found, kept))

    async def ListExecutions(self, request: pb.ListExecutionsRequest, call: Call[BlobView]) -> bytes:
        blob, order_by = call.resource, request.order_by or "create_time desc"
        only = to_filter(request, await self._session_id(request.session, call))
        page = Page.parse(request, blob.id, repr(only), order_by)
        async with self._host.db.scan(call.caller.party) as tx:
            found, more = await store.page(
                tx, blob.id, only, order_by=order_by, after=page.after, limit=page.limit + 1, max_bytes=MAX_PAGE_BYTES
            )
        make = partial(_listed, allowance=json_field.ItemAllowance())
        items, token = await page.fill(
            found, store.order(order_by).key, make, size_of=len, more=more, weight_of=_size, party=call.caller.party
        )
        return repeated(1, items) + pb.ListExecutionsResponse(next_page_token=token).SerializeToString()

    async def _session_id(self, reference: str, call: Call[BlobView]) -> str:
        """The id of the session of a blob whose executions are asked for; empty for all. Raises NotFound."""
        if not reference:
            return ""
        found = await locate_session(self._host, reference, call.caller)
        if found is None or isinstance(found.resource, BlobHubError) or found.resource.blob_id != call.resource.id:
            raise NotFound("session", reference, instead="the blob has no such session")
        return found.resource.id

    async def StopExecution(self, request: pb.StopExecutionRequest, call: Call[Execution]) -> pb.StopExecutionResponse:
        async def make(tx: Transaction) -> pb.StopExecutionResponse:
            return pb.StopExecutionResponse(execution=to_proto(await self._inbox.stop(tx, call.resource.id)))

        return await call.once(make)

    async def SignalExecution(self, request: pb.SignalExecutionRequest, call: Call[Execution]) -> pb.SignalExecutionResponse:
        value, _ = await off_loop(request.ByteSize(), call.caller.party, partial(json_field.read, request, "value"))

        async def make(tx: Transaction) -> pb.SignalExecutionResponse:
            await self._inbox.signal(tx, call.resource.id, name=request.name, key=request.key, value=value)
            return pb.SignalExecutionResponse()

        return await call.once(make)

    async def WatchExecution(self, request: pb.WatchExecutionRequest, call: Call[Execution]) -> AsyncIterator[bytes]:
        execution = call.resource
        check_range(request.after_execution_sequence, execution.last_execution_sequence)
        if execution.ended and request.after_execution_sequence == execution.last_execution_sequence:
            return
        after = request.after_execution_sequence
        async for batch in self._watch(call, execution.id, after, replay_only=request.replay_only):
            yield pack(batch, self._host.clock())

    def _watch(
        self, call: Call[Any], execution_id: str, after: int, *, replay_only: bool
    ) -> AsyncIterator[Sequence[LoggedEvent] | Idle]:
        watch = watch_execution(self._log, execution_id, call.caller.party, self._host.settings.progress_seconds)
        return watch.stream(call, self._host.bell, self._host.drain, after, replay_only=replay_only)


async def locate_execution(host: Host, value: str, _caller: Caller) -> Resolution[Execution] | None:
    """The locator of executions."""
    async with host.db.read() as tx:
        execution = await store.get(tx, value.lower())
    if execution is None:
        return None
    place = Place(organization_id=execution.organization_id, blob_id=execution.blob_id)
    return Resolution(place=place, resource=execution, never_public=True)
