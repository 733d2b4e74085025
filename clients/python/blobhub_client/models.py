"""Models up and down, whichever client moves them: what is sent, what has come, and where to go on."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from typing import IO, TypeVar

import grpc
from blobhub.v1.model_pb2 import DownloadModelRequest, DownloadModelResponse, ModelArtifact, UploadModelRequest
from blobhub.v1.operation_pb2 import OPERATION_STATE_FAILED, OPERATION_STATE_SUCCEEDED, Operation, OperationState
from google.protobuf.message import Message

from blobhub_client.errors import CallError
from blobhub_client.policy import Policy, Retries
from blobhub_client.streams import changed

CHUNK_BYTES = 256 << 10

Progress = Callable[[int, int], None]
"""Is told how many bytes have been moved, and how many there are in all."""
Result = TypeVar("Result", bound=Message)


class TransferError(Exception):
    """What has come is not what was stored; or an operation has ended without an answer and without an error."""


class Upload:
    """A model that is sent, again from its beginning where that is needed; under one request id it is stored once."""

    def __init__(
        self, first: UploadModelRequest, content: IO[bytes], policy: Policy, progress: Progress | None = None
    ) -> None:
        self._content, self._start = content, content.tell()
        digest = hashlib.sha256()
        size = 0
        while chunk := content.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
        request_id = first.request_id or str(uuid.uuid4())
        self._first = changed(first, size=size, sha256=digest.hexdigest(), request_id=request_id)
        self._progress = progress or _nobody
        self._retries = Retries(policy.attempts)
        self._asks = False

    def wait(self, error: CallError) -> float:
        """How many seconds to wait before the next attempt. Raises the error where there is to be none.

        gRPC has an INTERNAL of its own for a call that the server ended while it was sent: what the server said is lost. So
        the next attempt asks for it, with the first message alone. Where the model is not stored, its bytes are missing.
        """
        if self._asks and error.code() is grpc.StatusCode.INVALID_ARGUMENT:
            self._asks = False
            return 0.0
        self._asks = True
        return self._retries.wait(error, safe=error.code() is grpc.StatusCode.INTERNAL and not error.reason)

    def messages(self) -> Iterator[UploadModelRequest]:
        """What the call sends."""
        yield self._first
        if self._asks:
            return
        self._content.seek(self._start)
        sent = 0
        while chunk := self._content.read(CHUNK_BYTES):
            yield UploadModelRequest(chunk=chunk)
            sent += len(chunk)
            self._progress(sent, self._first.size)


class Download:
    """A file of a model that comes, in as many calls as that takes."""

    def __init__(
        self, request: DownloadModelRequest, into: IO[bytes], policy: Policy, progress: Progress | None = None
    ) -> None:
        self._asked, self._into, self._progress = request, into, progress or _nobody
        self._artifact: ModelArtifact | None = None
        self._digest, self._received = hashlib.sha256(), 0
        self._retries = Retries(policy.attempts)
        self.wait = self._retries.wait

    @property
    def request(self) -> DownloadModelRequest:
        """Asks for what has not come."""
        length = self._asked.length and self._asked.length - self._received
        made: DownloadModelRequest = changed(self._asked, offset=self._asked.offset + self._received, length=length)
        return made

    @property
    def is_done(self) -> bool:
        """Whether all of a range has come; where that ends with the file, the end of the call tells it."""
        return 0 < self._asked.length == self._received

    def take(self, message: DownloadModelResponse) -> None:
        """Write what a message brings. Raises TransferError where the model is not the one of the call before."""
        if message.HasField("artifact"):
            if self._artifact is not None and self._artifact.digest != message.artifact.digest:
                raise TransferError("the model was replaced while it was downloaded")
            self._artifact = message.artifact
        if not message.chunk or self._artifact is None:
            return
        self._into.write(message.chunk)
        self._digest.update(message.chunk)
        self._received += len(message.chunk)
        self._retries.reset()
        self._progress(self._received, self._artifact.size)

    def finish(self) -> ModelArtifact:
        """The file, as the server describes it. Raises TransferError where a whole file has another digest."""
        if self._artifact is None:
            raise TransferError("nothing has come")
        is_whole = not self._asked.offset and not self._asked.length
        if is_whole and self._digest.hexdigest() != self._artifact.digest:
            raise TransferError("what has come is not what was stored: its digest is another")
        return self._artifact


def response(operation: Operation, kind: type[Result]) -> Result:
    """What an operation that has ended answers. Raises CallError where it failed, TransferError where it was cancelled."""
    if operation.state == OPERATION_STATE_FAILED:
        raise CallError.of_status(operation.error)
    made = kind()
    if operation.state != OPERATION_STATE_SUCCEEDED or not operation.response.Unpack(made):
        raise TransferError(f"the operation {operation.id} has ended as {OperationState.Name(operation.state)}")
    return made


def _nobody(moved: int, size: int) -> None:
    """Nobody wants to know."""
