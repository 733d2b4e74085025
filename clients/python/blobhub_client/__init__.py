"""A small client for BlobHub: connect with a key, walk pages, run and watch with automatic resume, move models.

    async with connect("127.0.0.1:7443", key) as hub:
        async for blob in page(hub.blobs.ListBlobs, ListBlobsRequest(organization="acme")):
            print(blob.alias)
        async for event in hub.run(RunExecutionRequest(session=..., spec=ExecutionSpec(definition="workflow"))):
            print(event.type)

JSON values are read with `get_value` and written with `set_value`. Everything else is the generated stubs, which hang on
the client by noun. Breaking out of a loop cancels its call.

A call that answers once has a deadline, and is made again after UNAVAILABLE where that is safe: if it changes nothing, or
has a `request_id`, which changes get unless they have one. Calls fail with CallError. A run or a watch begins with an
attempt to reach the server; when none answers, Unreachable says where none does.

`blobhub_client.sync` is the same for programs without asyncio, `blobhub_client.building` writes definitions.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import IO, Any, TypeVar

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
    task_pb2_grpc,
    user_pb2_grpc,
)
from blobhub.v1.audit_pb2 import AuditEntry, WatchAuditEntriesRequest
from blobhub.v1.blob_event_pb2 import BlobEvent
from blobhub.v1.blob_pb2 import WatchBlobRequest
from blobhub.v1.event_pb2 import Event
from blobhub.v1.execution_pb2 import RunExecutionRequest, WatchExecutionRequest
from blobhub.v1.firing_pb2 import Firing, WatchFiringsRequest
from blobhub.v1.model_pb2 import DownloadModelRequest, ModelArtifact, UploadModelRequest
from blobhub.v1.operation_pb2 import Operation, WatchOperationRequest
from blobhub.v1.session_pb2 import WatchSessionRequest
from google.protobuf.message import Message

from blobhub_client import models
from blobhub_client.channel import KeyChannel, RepeatingChannel
from blobhub_client.errors import CallError, LogGap, Unreachable, reason
from blobhub_client.models import Progress, TransferError
from blobhub_client.policy import Policy
from blobhub_client.streams import CONNECT_SECONDS, KEEPALIVE, Position, Reach, after_field, changed, items
from blobhub_client.values import get_value, set_value
from blobhub_client.worker import NotRetryable, Task, Worker

__all__ = [
    "CallError",
    "Client",
    "KeyChannel",
    "LogGap",
    "NotRetryable",
    "Policy",
    "Task",
    "TransferError",
    "Unreachable",
    "Worker",
    "connect",
    "get_value",
    "page",
    "reason",
    "set_value",
]

Result = TypeVar("Result", bound=Message)


@asynccontextmanager
async def connect(
    address: str,
    key: str | None = None,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    connect_seconds: float = CONNECT_SECONDS,
    reconnect_seconds: float | None = None,
    policy: Policy = Policy(),  # noqa: B008  it does not change
) -> AsyncIterator[Client]:
    """A client of the server at `address`, over TLS with `credentials`, else in clear.

    `key` is sent with every call; without one, calls are anonymous. Pings every 20 s detect dead connections. `policy` says
    how long a call that answers once may take, and how often it is made. A run or a watch raises Unreachable when it cannot
    begin within `connect_seconds`. One that has begun and is cut off tries to resume for `reconnect_seconds`, or for ever.
    """
    made = (
        grpc.aio.secure_channel(address, credentials, KEEPALIVE)
        if credentials
        else grpc.aio.insecure_channel(address, KEEPALIVE)
    )
    reach = Reach(
        address=address,
        secure=credentials is not None,
        connect_seconds=connect_seconds,
        reconnect_seconds=reconnect_seconds,
    )
    async with made as channel:
        yield Client(RepeatingChannel(KeyChannel(channel, key) if key else channel, policy), reach, policy)


class Client:
    """Every stub, by noun, and the streams that resume by themselves."""

    def __init__(self, channel: grpc.aio.Channel, reach: Reach | None = None, policy: Policy | None = None) -> None:
        self.channel = channel
        self._reach, self._policy = reach or Reach(), policy or Policy()
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
        self.tasks = task_pb2_grpc.TaskServiceStub(channel)
        self.users = user_pb2_grpc.UserServiceStub(channel)

    def watch_session(
        self, session: str, *, after_session_sequence: int = 0, replay_only: bool = False
    ) -> AsyncIterator[Event]:
        """A session's events after a session sequence, and, unless `replay_only`, those to come until it is closed.

        An interrupted stream is resumed after the last event that it has given.
        """
        request = WatchSessionRequest(
            session=session, after_session_sequence=after_session_sequence, replay_only=replay_only
        )
        return self._watch(self.sessions.WatchSession, request)

    def watch_execution(
        self, execution: str, *, after_execution_sequence: int = 0, replay_only: bool = False
    ) -> AsyncIterator[Event]:
        """An execution's events after an execution sequence, and, unless `replay_only`, those to come until it has ended."""
        request = WatchExecutionRequest(
            execution=execution, after_execution_sequence=after_execution_sequence, replay_only=replay_only
        )
        return self._watch(self.executions.WatchExecution, request)

    def watch_blob(self, blob: str, *, after_sequence: int = 0, replay_only: bool = False) -> AsyncIterator[BlobEvent]:
        """What happened to a blob after a sequence, and, unless `replay_only`, what will."""
        request = WatchBlobRequest(blob=blob, after_sequence=after_sequence, replay_only=replay_only)
        return self._watch(self.blobs.WatchBlob, request)

    def watch_firings(
        self, blob: str, *, schedule: str = "", after_sequence: int = 0, replay_only: bool = False
    ) -> AsyncIterator[Firing]:
        """A scheduler's firings, or those of one schedule, after a sequence, and, unless `replay_only`, those to come.

        One that has started an execution comes again when that has ended.
        """
        request = WatchFiringsRequest(blob=blob, schedule=schedule, after_sequence=after_sequence, replay_only=replay_only)
        return self._watch(self.firings.WatchFirings, request, dense=not schedule)

    def watch_operation(
        self, operation: str, *, after_sequence: int = 0, replay_only: bool = False
    ) -> AsyncIterator[Operation]:
        """An operation as it is now, unless that was seen; then, unless `replay_only`, each time it changes, to its end."""
        request = WatchOperationRequest(operation=operation, after_sequence=after_sequence, replay_only=replay_only)
        return self._watch(self.operations.WatchOperation, request)

    def watch_audit(self, parent: str, *, after_sequence: int = 0, replay_only: bool = False) -> AsyncIterator[AuditEntry]:
        """The audit log's entries of a parent after a sequence, and, unless `replay_only`, those to come."""
        request = WatchAuditEntriesRequest(parent=parent, after_sequence=after_sequence, replay_only=replay_only)
        return self._watch(self.audit.WatchAuditEntries, request)

    async def run(self, request: RunExecutionRequest) -> AsyncIterator[Event]:
        """Start an execution and yield its events until it has ended, also across interruptions.

        The request gets a `request_id` when it has none, so that one execution starts however often it is sent.
        """
        sent = changed(request, request_id=request.request_id or str(uuid.uuid4()))
        execution_id = ""

        def call(after: int) -> Any:
            if execution_id and after:
                return self.executions.WatchExecution(
                    WatchExecutionRequest(execution=execution_id, after_execution_sequence=after)
                )
            return self.executions.RunExecution(sent)

        async with aclosing(self._resume(call, Position("execution_sequence", 0, self._reach, dense=True))) as events:
            async for event in events:
                execution_id = event.execution_id
                yield event

    async def upload_model(
        self, first: UploadModelRequest, content: IO[bytes], *, progress: Progress | None = None
    ) -> Operation:
        """Store a model, from where a file stands to its end; the operation that processes it, whose end is for `outcome`.

        `first` says which draft it is for, and what it is; size and digest are found out. It is sent again from its
        beginning when the connection breaks, and stored once. `progress` gets the bytes sent and all of them.
        """
        upload = await asyncio.to_thread(models.Upload, first, content, self._policy, progress)
        while True:
            try:
                return (await self.models.UploadModel(upload.messages())).operation
            except grpc.aio.AioRpcError as error:
                await asyncio.sleep(upload.wait(CallError.of(error)))

    async def outcome(self, operation: str, kind: type[Result]) -> Result:
        """Follow an operation to its end: what it answers, as its kind of message. Raises CallError where it has failed."""
        ended = Operation()
        async for ended in self.watch_operation(operation):  # noqa: B007  the last one counts
            pass
        return models.response(ended, kind)

    async def download_model(
        self, request: DownloadModelRequest, into: IO[bytes], *, progress: Progress | None = None
    ) -> ModelArtifact:
        """Write a file of a model, or a range of it, and go on where it was when the connection breaks.

        The digest of a whole file is compared. `progress` gets the bytes that have come and those of the whole file. Raises
        TransferError where what has come is not what was stored.
        """
        download = models.Download(request, into, self._policy, progress)
        while not download.is_done:
            stream = self.models.DownloadModel(download.request)
            try:
                async for message in stream:
                    download.take(message)
                break
            except grpc.aio.AioRpcError as error:
                await asyncio.sleep(download.wait(CallError.of(error)))
            finally:
                stream.cancel()
        return download.finish()

    def _watch(self, method: Callable[..., Any], request: Any, *, dense: bool | None = None) -> AsyncGenerator[Any, None]:
        """The items of a Watch method's stream, whose request says after which one it begins."""
        field = after_field(request)
        return self._resume(
            lambda after: method(changed(request, **{field: after})), Position.of(request, self._reach, dense=dense)
        )

    async def _resume(self, call: Callable[[int], Any], position: Position) -> AsyncGenerator[Any, None]:
        """The items of a stream, once a server was reached; it is opened anew after the last one when it breaks.

        Raises Unreachable, and what `Position` raises.
        """
        await self._require_server()
        while True:
            stream = call(position.after)
            try:
                async for message in stream:
                    for item in position.take(message):
                        yield item
                return
            except grpc.aio.AioRpcError as error:
                await asyncio.sleep(position.wait(CallError.of(error)))
            finally:
                stream.cancel()

    async def _require_server(self) -> None:
        """Wait until a server answers. Raises Unreachable."""
        try:
            async with asyncio.timeout(self._reach.connect_seconds):
                await self.channel.channel_ready()
        except TimeoutError:
            raise self._reach.unreachable() from None


async def page(method: Callable[..., Any], request: Any) -> AsyncIterator[Any]:
    """Every item of a List method, page after page. The answer's one repeated field holds them."""
    token = request.page_token
    while True:
        answer = await method(changed(request, page_token=token))
        for item in items(answer):
            yield item
        token = answer.next_page_token
        if not token:
            return
