"""Transfers by presigned URL: parts of uploads that come, and objects that go, in constant memory.

Nothing here is reached without a signature. It is checked first, then whether its actor may still act, and only then is the
request looked at. A transfer goes on after its URL has expired, but not after the key of its actor was revoked.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from datetime import datetime
from typing import Literal

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from blobhub_server.errors import BlobHubError, Internal, Overloaded, StorageUnavailable
from blobhub_server.http import checksums, ranges
from blobhub_server.http.problem import Problem
from blobhub_server.ids import Ids
from blobhub_server.objects.contract import ObjectNotFound, ObjectTooLarge, PartMismatch
from blobhub_server.objects.grant import BadSignature, Grant, Signer
from blobhub_server.objects.local import LocalObjects
from blobhub_server.objects.local_upload import ChecksumMismatch, PartIncomplete

log = structlog.get_logger()

MAX_TRANSFERS, MAX_TRANSFERS_PER_ACTOR = 32, 16
"""How many may be under way; each has up to 3 MiB in memory."""
MIN_BYTES_PER_SECOND = 16 << 10
"""What is slower than this over its whole length is ended."""
RECHECK_SECONDS = 2.0
"""How often it is looked whether the actor of a transfer may still act."""

MayAct = Callable[[str], Awaitable[bool]]
"""Whether a key or a user (`Caller.actor_id`) may act now."""


class Transfers:
    """The routes of presigned URLs on an object store of local files."""

    def __init__(
        self,
        objects: LocalObjects,
        signer: Signer,
        may_act: MayAct,
        clock: Callable[[], datetime],
        ids: Ids,
        *,
        idle_seconds: float,
        on_trouble: Callable[[StorageUnavailable], None],
    ) -> None:
        """`idle_seconds` is how long either side may wait for the other within a transfer. `on_trouble` hears of the
        transfers that the storage has failed.
        """
        self._objects = objects
        self._signer = signer
        self._may_act = may_act
        self._clock = clock
        self._ids = ids
        self._idle_seconds = idle_seconds
        self._on_trouble = on_trouble
        self._under_way: Counter[str] = Counter()

    def routes(self) -> list[BaseRoute]:
        """The routes."""
        return [
            Route("/v1/objects/{digest}", self._answering(self._get), methods=["GET"]),  # and HEAD
            Route("/v1/uploads/{upload_id}/parts/{part:int}", self._answering(self._put), methods=["PUT"]),
        ]

    def _answering(self, handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """A handler whose errors are answered."""

        async def call(request: Request) -> Response:
            try:
                return await handle(request)
            except Problem as problem:
                return problem.response()
            except BlobHubError as error:
                self._report(error)
                return Problem.of(error).response()
            except ClientDisconnect:
                return Response(status_code=400)  # Nobody reads it.
            except Exception:
                error_id = self._ids()
                log.exception("transfer_failed", error_id=error_id)
                return Problem.of(Internal(error_id)).response()

        return call

    async def _get(self, request: Request) -> Response:
        digest = request.path_params["digest"]
        permit = await self._permit(request, "GET", digest, 0)
        try:
            size = await self._objects.size(digest)
        except ObjectNotFound:
            raise Problem(404, "NOT_FOUND", "there is no such object any more") from None
        etag = f'"{digest}"'
        part = ranges.choose(request.headers, etag, size)
        headers = {
            "etag": etag,
            "accept-ranges": "bytes",
            "cache-control": "private, no-transform",
            "repr-digest": checksums.content_digest(digest),
        }
        if (content_range := part.content_range(size)) is not None:
            headers["content-range"] = content_range
        if part.status not in {200, 206} or request.method == "HEAD":
            length = {} if part.status in {304, 412, 416} else {"content-length": str(part.length)}
            return Response(status_code=part.status, headers=headers | length)
        headers["content-length"] = str(part.length)
        chunks = self._sending(permit, digest, part)
        # The first block is verified before anything is answered.
        first = await anext(chunks, b"")
        return _Sending(first, chunks, part, headers, self._idle_seconds)

    async def _sending(self, permit: _Permit, digest: str, part: ranges.Part) -> AsyncGenerator[bytes, None]:
        with self._counted(permit.actor_id):
            try:
                async for chunk in self._objects.read(digest, part.offset, part.length):
                    yield chunk
                    await permit.require()
            except StorageUnavailable as error:  # The answer has begun, so nobody else hears of it.
                self._report(error)
                raise

    def _report(self, error: BlobHubError) -> None:
        if isinstance(error, StorageUnavailable):
            self._on_trouble(error)

    async def _put(self, request: Request) -> Response:
        upload_id, number = request.path_params["upload_id"], request.path_params["part"]
        permit = await self._permit(request, "PUT", upload_id, number)
        length = request.headers.get("content-length")
        if length is not None and length != str(permit.size):
            raise Problem(400, "WRONG_SIZE", f"the part has {permit.size} bytes, as signed, not {length}")
        try:
            expected = checksums.given(request.headers)
        except checksums.BadChecksum:
            raise Problem(400, "INVALID_CHECKSUM", "Content-Digest or x-goog-hash is not of its form") from None
        with self._counted(permit.actor_id):
            etag = await self._take(request, permit, upload_id, number, expected)
        headers = {"etag": f'"{etag}"', "repr-digest": checksums.content_digest(etag)}
        return Response(status_code=200, headers=headers)

    async def _take(self, request: Request, permit: _Permit, upload_id: str, number: int, expected: dict[str, bytes]) -> str:
        """Take in the body as a part; return its ETag. Raises Problem."""
        try:
            async with (
                asyncio.timeout(self._idle_seconds + permit.size / MIN_BYTES_PER_SECOND),
                self._objects.part_files.write(upload_id, number, permit.size) as writer,
            ):
                async with aclosing(_body(request, self._idle_seconds)) as chunks:
                    async for chunk in chunks:
                        await writer.append(chunk)
                        await permit.require()
                return (await writer.commit(expected)).etag
        except TimeoutError:
            raise Problem(408, "TOO_SLOW", "the body did not come in time; send the part again") from None
        except ObjectTooLarge:
            raise Problem(413, "WRONG_SIZE", f"the part has {permit.size} bytes, as signed, and more came") from None
        except PartIncomplete:
            raise Problem(400, "WRONG_SIZE", f"the part has {permit.size} bytes, as signed, and fewer came") from None
        except PartMismatch:
            raise Problem(403, "BAD_SIGNATURE", _UNSIGNED) from None
        except ChecksumMismatch as error:
            raise Problem(400, "CHECKSUM_MISMATCH", f"the {error.name} of what came is another one; send it again") from None

    async def _permit(self, request: Request, method: Literal["GET", "PUT"], name: str, part: int) -> _Permit:
        """What a request is allowed by its signature. Raises Problem."""
        query = request.query_params
        try:
            if len(query) != len(query.multi_items()):
                raise BadSignature
            grant = self._signer.read(method, name, part, query, self._clock())
        except BadSignature:
            raise Problem(403, "BAD_SIGNATURE", _UNSIGNED) from None
        permit = _Permit(grant, self._may_act)
        await permit.check()
        return permit

    @contextmanager
    def _counted(self, actor_id: str) -> Iterator[None]:
        """Count a transfer while it is under way. Raises Overloaded."""
        if self._under_way.total() >= MAX_TRANSFERS or self._under_way[actor_id] >= MAX_TRANSFERS_PER_ACTOR:
            raise Overloaded
        self._under_way[actor_id] += 1
        try:
            yield
        finally:
            self._under_way[actor_id] -= 1
            self._under_way += Counter()  # Without those that have none.


_UNSIGNED = "the URL is not signed for this, or has expired; ask for another one"


class _Permit:
    """A grant that holds for as long as its actor may act."""

    def __init__(self, grant: Grant, may_act: MayAct) -> None:
        self.actor_id = grant.actor_id
        self.size = grant.size
        self._may_act = may_act
        self._checked = 0.0

    async def require(self) -> None:
        """Check again from time to time. Raises Problem."""
        if asyncio.get_running_loop().time() - self._checked >= RECHECK_SECONDS:
            await self.check()

    async def check(self) -> None:
        """Raise Problem when the actor may not act any more."""
        # Who read a public blob without a key has none that could be revoked.
        if self.actor_id and not await self._may_act(self.actor_id):
            raise Problem(403, "PERMISSION_DENIED", "the key that this URL was made with does not work any more")
        self._checked = asyncio.get_running_loop().time()


class _Sending(StreamingResponse):
    """An answer whose connection is cut when it cannot be finished: its client reads nothing, or the bytes are harmed."""

    def __init__(
        self, first: bytes, others: AsyncGenerator[bytes, None], part: ranges.Part, headers: dict[str, str], seconds: float
    ) -> None:
        super().__init__(_chain(first, others), part.status, headers, media_type="application/octet-stream")
        self._others = others
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, chunk by chunk."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._seconds):
                await send(message)

        async with aclosing(self._others):
            try:
                await super().__call__(scope, receive, send_in_time)
            except (ClientDisconnect, TimeoutError, BlobHubError, ObjectNotFound, Problem) as error:
                log.info("transfer_ended", path=scope["path"], reason=type(error).__name__)
                scope["state"]["abort"]()
                await asyncio.sleep(0)  # uvicorn takes note of that before this call ends.


async def _chain(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in others:
        yield chunk


async def _body(request: Request, idle_seconds: float) -> AsyncGenerator[bytes, None]:
    """The chunks of a body. Raises TimeoutError when none comes for long."""
    chunks = request.stream()
    while True:
        async with asyncio.timeout(idle_seconds):
            chunk = await anext(chunks, None)
        if chunk is None:
            return
        yield chunk
