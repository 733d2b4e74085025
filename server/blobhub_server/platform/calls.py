"""The call being served: who makes it, what it is about, and whether it was made before."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message
from sqlalchemy.exc import IntegrityError

from blobhub_server.blobtypes.contract import Located, RevisionView
from blobhub_server.clock import Clock
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import BlobHubError, RequestIdReused, WrongBlobType
from blobhub_server.platform.rules.access import Caller
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.revision import Revision
from blobhub_server.platform.store import request as store

Answer = TypeVar("Answer", bound=Message)


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has been admitted. `located` is None for methods whose access is not held on a resource."""

    method: str
    caller: Caller
    located: Located | None


@dataclass(frozen=True, slots=True)
class BlobRevision:
    """What a revision reference is resolved to."""

    blob: Blob
    revision: Revision


CALL: ContextVar[Call] = ContextVar("call")


def caller() -> Caller:
    """Who makes the current call."""
    return CALL.get().caller


def located() -> Located:
    """What the current call is about."""
    found = CALL.get().located
    assert found is not None, "only for methods whose access rule names a resource"
    return found


class Calls:
    """Implements `blobtypes.contract.Calls`."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    def located(self) -> Located:
        """See the contract."""
        return located()

    def revision(self, blob_type: str) -> RevisionView:
        """See the contract."""
        found: BlobRevision = located().resource
        if found.blob.type != blob_type:
            raise WrongBlobType(found.blob.type, blob_type)
        return RevisionView(
            id=found.revision.id,
            blob_id=found.blob.id,
            org_id=found.blob.org_id,
            blob_type=found.blob.type,
            phase=found.revision.phase,
            etag=found.revision.etag,
        )

    async def once(self, request: Message, answer: type[Answer], make: Callable[[Transaction], Awaitable[Answer]]) -> Answer:
        """See the contract. A caller that goes away does not interrupt the transaction."""
        try:
            return await asyncio.shield(asyncio.create_task(self._make(request, make)))
        except (IntegrityError, BlobHubError):
            # The same request may have been made and answered while this one was under way: then that is the answer.
            before = await self.replayed(request, answer)
            if before is None:
                raise
            return before

    async def _make(self, request: Message, make: Callable[[Transaction], Awaitable[Answer]]) -> Answer:
        async with self._db.write() as tx:
            made = await make(tx)
            row = self.remembered(request, made)
            if row is not None:
                await store.insert(tx, [row])
            return made

    async def replayed(self, request: Message, answer: type[Answer]) -> Answer | None:
        """See the contract."""
        call = CALL.get()
        data = await answered_before(self._db, call.caller, call.method, request)
        return None if data is None else answer.FromString(data)

    def remembered(self, request: Message, answer: Message) -> Mapping[str, Any] | None:
        """See the contract."""
        request_id = getattr(request, "request_id", "")
        if not request_id:
            return None
        call = CALL.get()
        return {
            "caller": call.caller.identity,
            "method": call.method,
            "request_id": request_id,
            "body_digest": _digest(request),
            "answer": answer.SerializeToString(),
            "create_time": self._clock(),
        }


async def answered_before(db: Database, caller: Caller, method: str, request: Message) -> bytes | None:
    """What this caller's request id was answered with. Raises RequestIdReused when the body was another one."""
    request_id = getattr(request, "request_id", "")
    if not request_id or "\0" in request_id or caller.anonymous:
        return None
    async with db.read() as tx:
        found = await store.find(tx, caller.identity, method, request_id)
    if found is None:
        return None
    digest, answer = found
    if digest != _digest(request):
        raise RequestIdReused(request_id)
    return answer


def _digest(request: Message) -> str:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
