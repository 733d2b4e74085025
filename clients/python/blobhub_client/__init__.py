"""A small client for BlobHub: connect with a key, walk pages, run and watch with automatic resume.

A run or a watch begins with an attempt to reach the server; when none answers, Unreachable says where none does.

    async with connect("127.0.0.1:7443", key) as hub:
        async for blob in page(hub.blobs.ListBlobs, ListBlobsRequest(organization="acme")):
            print(blob.alias)
        async for event in hub.run(RunExecutionRequest(session=..., spec=ExecutionSpec(definition="workflow"))):
            print(event.type)

JSON values are read with `get_value` and written with `set_value`. Everything else is the generated stubs, which hang on
the client by noun. Breaking out of a loop cancels its call.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import grpc
from blobhub.v1 import (
    api_key_pb2_grpc,
    audit_pb2_grpc,
    blob_pb2_grpc,
    blob_type_pb2_grpc,
    caller_pb2_grpc,
    component_pb2_grpc,
    credential_pb2_grpc,
    definition_pb2_grpc,
    execution_pb2_grpc,
    firing_pb2_grpc,
    inference_pb2_grpc,
    limit_pb2_grpc,
    member_pb2_grpc,
    metadata_pb2_grpc,
    model_pb2_grpc,
    model_upload_pb2_grpc,
    operation_pb2_grpc,
    organization_pb2_grpc,
    revision_pb2_grpc,
    schedule_pb2_grpc,
    session_object_pb2_grpc,
    session_pb2_grpc,
    signal_pb2_grpc,
    user_pb2_grpc,
)
from blobhub.v1.audit_pb2 import AuditEntry, WatchAuditEntriesRequest
from blobhub.v1.blob_event_pb2 import BlobEvent
from blobhub.v1.blob_pb2 import WatchBlobRequest
from blobhub.v1.event_pb2 import Event
from blobhub.v1.execution_pb2 import RunExecutionRequest, WatchExecutionRequest
from blobhub.v1.firing_pb2 import Firing, WatchFiringsRequest
from blobhub.v1.operation_pb2 import Operation, WatchOperationRequest
from blobhub.v1.session_pb2 import WatchSessionRequest
from google.rpc import error_details_pb2, status_pb2

from blobhub_client.channel import KeyChannel
from blobhub_client.values import get_value, set_value

__all__ = ["Client", "KeyChannel", "LogGap", "Unreachable", "connect", "get_value", "page", "reason", "set_value"]

TRANSIENT = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
"""Statuses after which an interrupted stream is resumed.

So is one that ended with RESOURCE_EXHAUSTED, if the server says when to try again. Without that it is a limit that waiting
does not change, or a message that is too large for this client, which it would be each time.
"""

MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.1, 10.0
CONNECT_SECONDS = 15.0
"""How long a run or a watch tries to reach a server before it begins, unless told otherwise."""


Sequence = Literal["sequence", "session_sequence", "execution_sequence"]


class LogGap(Exception):
    """The server sent an event that does not follow the one before it, which is a bug of the server."""


class Unreachable(Exception):
    """No server answers at the address."""


@asynccontextmanager
async def connect(
    address: str,
    key: str | None = None,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    connect_seconds: float = CONNECT_SECONDS,
    reconnect_seconds: float | None = None,
) -> AsyncIterator[Client]:
    """A client of the server at `address`, over TLS with `credentials`, else in clear.

    `key` is sent with every call; without one, calls are anonymous. Pings every 20 s detect dead connections. A run or a
    watch raises Unreachable when it cannot begin within `connect_seconds`. One that has begun and is cut off tries to resume
    for `reconnect_seconds`, or for ever.
    """
    secure = credentials is not None
    options = (("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 10_000))
    made = (
        grpc.aio.secure_channel(address, credentials, options)
        if credentials
        else grpc.aio.insecure_channel(address, options)
    )
    async with made as channel:
        reach = Reach(address=address, secure=secure, connect_seconds=connect_seconds, reconnect_seconds=reconnect_seconds)
        yield Client(KeyChannel(channel, key) if key else channel, reach)


@dataclass(frozen=True)
class Reach:
    """Where the server is, and how long to try to get there."""

    address: str = "the channel's address"
    secure: bool = False
    connect_seconds: float = CONNECT_SECONDS
    reconnect_seconds: float | None = None

    async def require_server(self, channel: grpc.aio.Channel) -> None:
        """Wait until a server answers. Raises Unreachable."""
        try:
            async with asyncio.timeout(self.connect_seconds):
                await channel.channel_ready()
        except TimeoutError:
            hint = "does it speak TLS, with a certificate that is trusted?" if self.secure else "does it ask for TLS?"
            raise Unreachable(
                f"no server answers at {self.address} within {self.connect_seconds:g} s; is one running there, and {hint}"
            ) from None


class Client:
    """Every stub, by noun, and the streams that resume by themselves."""

    def __init__(self, channel: grpc.aio.Channel, reach: Reach | None = None) -> None:
        self.channel = channel
        self._reach = reach or Reach()
        self.api_keys = api_key_pb2_grpc.ApiKeyServiceStub(channel)
        self.audit = audit_pb2_grpc.AuditServiceStub(channel)
        self.blobs = blob_pb2_grpc.BlobServiceStub(channel)
        self.blob_types = blob_type_pb2_grpc.BlobTypeServiceStub(channel)
        self.callers = caller_pb2_grpc.CallerServiceStub(channel)
        self.components = component_pb2_grpc.ComponentServiceStub(channel)
        self.credentials = credential_pb2_grpc.CredentialServiceStub(channel)
        self.definitions = definition_pb2_grpc.DefinitionServiceStub(channel)
        self.executions = execution_pb2_grpc.ExecutionServiceStub(channel)
        self.firings = firing_pb2_grpc.FiringServiceStub(channel)
        self.inference = inference_pb2_grpc.InferenceServiceStub(channel)
        self.limits = limit_pb2_grpc.LimitServiceStub(channel)
        self.members = member_pb2_grpc.MemberServiceStub(channel)
        self.metadata = metadata_pb2_grpc.MetadataServiceStub(channel)
        self.models = model_pb2_grpc.ModelServiceStub(channel)
        self.model_uploads = model_upload_pb2_grpc.ModelUploadServiceStub(channel)
        self.operations = operation_pb2_grpc.OperationServiceStub(channel)
        self.organizations = organization_pb2_grpc.OrganizationServiceStub(channel)
        self.revisions = revision_pb2_grpc.RevisionServiceStub(channel)
        self.schedules = schedule_pb2_grpc.ScheduleServiceStub(channel)
        self.session_objects = session_object_pb2_grpc.SessionObjectServiceStub(channel)
        self.sessions = session_pb2_grpc.SessionServiceStub(channel)
        self.signals = signal_pb2_grpc.SignalServiceStub(channel)
        self.users = user_pb2_grpc.UserServiceStub(channel)

    def watch_session(
        self, session: str, *, after_session_sequence: int = 0, replay_only: bool = False
    ) -> AsyncIterator[Event]:
        """A session's events after a session sequence, and, unless `replay_only`, those to come until it is closed.

        An interrupted stream is resumed; see `_resume`.
        """

        def call(after: int) -> Any:
            request = WatchSessionRequest(session=session, after_session_sequence=after, replay_only=replay_only)
            return self.sessions.WatchSession(request)

        return self._resume(call, after_session_sequence, "session_sequence")

    def watch_execution(
        self, execution: str, *, after_execution_sequence: int = 0, replay_only: bool = False
    ) -> AsyncIterator[Event]:
        """An execution's events after an execution sequence, and, unless `replay_only`, those to come until it has ended."""

        def call(after: int) -> Any:
            request = WatchExecutionRequest(execution=execution, after_execution_sequence=after, replay_only=replay_only)
            return self.executions.WatchExecution(request)

        return self._resume(call, after_execution_sequence, "execution_sequence")

    def watch_blob(self, blob: str, *, after_sequence: int = 0, replay_only: bool = False) -> AsyncIterator[BlobEvent]:
        """What happened to a blob after a sequence, and, unless `replay_only`, what will."""

        def call(after: int) -> Any:
            return self.blobs.WatchBlob(WatchBlobRequest(blob=blob, after_sequence=after, replay_only=replay_only))

        return self._resume(call, after_sequence, "sequence", dense=False)

    def watch_firings(
        self, blob: str, *, schedule: str = "", after_sequence: int = 0, replay_only: bool = False
    ) -> AsyncIterator[Firing]:
        """A scheduler's firings, or those of one schedule, after a sequence, and, unless `replay_only`, those to come.

        One that has started an execution comes again when that has ended.
        """

        def call(after: int) -> Any:
            request = WatchFiringsRequest(blob=blob, schedule=schedule, after_sequence=after, replay_only=replay_only)
            return self.firings.WatchFirings(request)

        return self._resume(call, after_sequence, "sequence", dense=not schedule)

    def watch_operation(
        self, operation: str, *, after_sequence: int = 0, replay_only: bool = False
    ) -> AsyncIterator[Operation]:
        """An operation as it is now, unless that was seen; then, unless `replay_only`, each time it changes, to its end."""

        def call(after: int) -> Any:
            request = WatchOperationRequest(operation=operation, after_sequence=after, replay_only=replay_only)
            return self.operations.WatchOperation(request)

        return self._resume(call, after_sequence, "sequence", dense=False)

    def watch_audit(self, parent: str, *, after_sequence: int = 0, replay_only: bool = False) -> AsyncIterator[AuditEntry]:
        """The audit log's entries of a parent after a sequence, and, unless `replay_only`, those to come."""

        def call(after: int) -> Any:
            request = WatchAuditEntriesRequest(parent=parent, after_sequence=after, replay_only=replay_only)
            return self.audit.WatchAuditEntries(request)

        return self._resume(call, after_sequence, "sequence", dense=False)

    async def run(self, request: RunExecutionRequest) -> AsyncIterator[Event]:
        """Start an execution and yield its events until it has ended, also across interruptions.

        The request gets a `request_id` when it has none, so that one execution starts however often it is sent.
        """
        sent = RunExecutionRequest()
        sent.CopyFrom(request)
        sent.request_id = sent.request_id or str(uuid.uuid4())
        execution_id = ""

        def call(after: int) -> Any:
            if execution_id and after:
                return self.executions.WatchExecution(
                    WatchExecutionRequest(execution=execution_id, after_execution_sequence=after)
                )
            return self.executions.RunExecution(sent)

        async with aclosing(self._resume(call, 0, "execution_sequence")) as events:
            async for event in events:
                execution_id = event.execution_id
                yield event

    async def _resume(
        self, call: Callable[[int], Any], after: int, number: Sequence, *, dense: bool = True
    ) -> AsyncGenerator[Any, None]:
        """What `_resume` yields, once a server was reached. Raises Unreachable."""
        await self._reach.require_server(self.channel)
        async with aclosing(_resume(call, after, number, self._reach, dense=dense)) as events:
            async for event in events:
                yield event


async def _resume(
    call: Callable[[int], Any], after: int, number: Sequence, reach: Reach, *, dense: bool = True
) -> AsyncGenerator[Any, None]:
    """Yield the items of a stream, which are its messages' one repeated field; resume it after the last item when it breaks.

    The backoff grows from 0.1 s to 10 s, with jitter, unless the server's RetryInfo says how long to wait; an event resets
    it. Errors that are not transient are raised, and so are all once nothing has come for `reach.reconnect_seconds`. Raises
    LogGap when an event does not follow the one before it; where the numbers are `dense`, it must be the next one.
    """
    wait, heard = MIN_RETRY_SECONDS, time.monotonic()
    while True:
        stream = call(after)
        try:
            async for message in stream:
                heard = time.monotonic()
                for event in _items(message):
                    found = getattr(event, number)
                    if found <= after or (dense and found != after + 1):
                        raise LogGap(f"{number} {found} came after {after}")
                    after, wait = found, MIN_RETRY_SECONDS
                    yield event
            return
        except grpc.aio.AioRpcError as error:
            told = _retry_after(error)
            exhausted = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            if error.code() not in TRANSIENT and not (exhausted and told):
                raise
            if reach.reconnect_seconds is not None and time.monotonic() - heard > reach.reconnect_seconds:
                raise Unreachable(f"no server answers at {reach.address} any more: {error.details()}") from error
            await asyncio.sleep(told or wait * random.uniform(0.5, 1))  # noqa: S311  jitter, no secret
            wait = min(wait * 2, MAX_RETRY_SECONDS)
        finally:
            stream.cancel()


async def page(method: Callable[..., Any], request: Any) -> AsyncIterator[Any]:
    """Every item of a List method, page after page. The answer's one repeated field holds them."""
    asked = type(request)()
    asked.CopyFrom(request)
    while True:
        answer = await method(asked)
        for item in _items(answer):
            yield item
        if not answer.next_page_token:
            return
        asked.page_token = answer.next_page_token


def _items(message: Any) -> Any:
    """What the one repeated field of a message holds."""
    field = next(field for field in message.DESCRIPTOR.fields if field.is_repeated)
    return getattr(message, field.name)


def reason(error: grpc.RpcError) -> str:
    """Why a call failed: the name of an `ErrorReason` without its prefix; empty when the server did not say."""
    info = error_details_pb2.ErrorInfo()
    return info.reason if _detail(error, info) else ""


def _retry_after(error: grpc.RpcError) -> float:
    info = error_details_pb2.RetryInfo()
    return info.retry_delay.ToTimedelta().total_seconds() if _detail(error, info) else 0.0


def _detail(error: grpc.RpcError, into: Any) -> bool:
    """Unpack the status detail of a type, if the error carries one."""
    for key, value in getattr(error, "trailing_metadata", tuple)() or ():
        if key == "grpc-status-details-bin":
            return any(detail.Unpack(into) for detail in status_pb2.Status.FromString(value).details)
    return False
