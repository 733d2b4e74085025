"""The call being served: who makes it, what it is about, whether it was made before, and what the audit log says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from google.protobuf.message import Message

from blobhub_server.blobtypes.contract import Located, RevisionView, Settled
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import WrongBlobType
from blobhub_server.platform.answers import Answers
from blobhub_server.platform.audit import Audit, entry_of
from blobhub_server.platform.rules.access import ANONYMOUS, Caller, Role
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.revision import Revision
from blobhub_server.platform.store import request as store

Answer = TypeVar("Answer", bound=Message)


@dataclass(slots=True)
class Call:
    """A call, as far as it has come.

    `resource` is the kind and the value that the request names; `located` what that was resolved to, None for methods
    whose access is not held on a resource; `also` what the further resources were resolved to; `role` the role the
    caller holds on `located`. `malformed` says that the key cannot be one; `recorded` that the audit log has the call.
    """

    method: str
    changes: bool
    request: Message
    resource: tuple[str, str] = ("", "")
    caller: Caller = ANONYMOUS
    located: Located | None = None
    also: Sequence[Located] = ()
    role: Role = Role.NONE
    malformed: bool = False
    recorded: bool = False


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


def also() -> Sequence[Located]:
    """The further resources that the current call names, in the order of its access rule."""
    return CALL.get().also


def role() -> Role:
    """The role that the caller holds on what the current call is about; that it may be public does not count."""
    return CALL.get().role


class Calls:
    """Implements `blobtypes.contract.Calls`."""

    def __init__(self, db: Database, answers: Answers, audit: Audit) -> None:
        self._db = db
        self._answers = answers
        self._audit = audit
        self._making: set[asyncio.Task[Any]] = set()

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

    async def once(self, request: Message, make: Callable[[Transaction], Awaitable[Answer]]) -> Answer:
        """See the contract. A caller that goes away does not interrupt the transaction."""
        making = asyncio.create_task(self._make(request, make))
        self._making.add(making)
        making.add_done_callback(self._made)
        return await asyncio.shield(making)

    def _made(self, making: asyncio.Task[Any]) -> None:
        """Let go of a task. What it raised is told to a caller that is still there, and to nobody else."""
        self._making.discard(making)
        if not making.cancelled():
            making.exception()

    async def _make(self, request: Message, make: Callable[[Transaction], Awaitable[Answer]]) -> Answer:
        async def work(tx: Transaction) -> Answer:
            made = await make(tx)
            await self.settle(tx, [self.settling(request)(made)])
            return made

        return await self._db.transact(work)

    def key(self, request: Message) -> str | None:
        """See the contract."""
        call, request_id = CALL.get(), getattr(request, "request_id", "")
        return f"{call.caller.identity} {call.method} {request_id}" if request_id else None

    async def replayed(self, request: Message, answer: type[Answer]) -> Answer | None:
        """See the contract."""
        call = CALL.get()
        before = await self._answers.before(call.caller, call.method, request)
        if before is None:
            return None
        call.recorded = True
        return answer.FromString(before.answer)

    def settling(self, request: Message, *, repeatable: bool = False) -> Callable[[Message], Settled]:
        """See the contract."""
        call = CALL.get()

        def settled(answer: Message) -> Settled:
            entry = entry_of(call.caller, call.located, call.method, call.resource, call.request, answer=answer)
            row = self._answers.row(call.caller, call.located, call.method, request, answer)
            return Settled(entry, row, partial(setattr, call, "recorded", True), repeatable)

        return settled

    async def settle(self, tx: Transaction, settled: Sequence[Settled]) -> None:
        """See the contract."""
        rows = [item.request for item in settled if item.request is not None and not item.repeatable]
        if rows:
            await store.insert(tx, rows)
        repeated = [item for item in settled if item.repeatable and not await self._first(tx, item)]
        await self._audit.append(tx, [item.entry for item in settled if item not in repeated])
        for item in settled:
            tx.after_commit(item.committed)

    async def _first(self, tx: Transaction, item: Settled) -> bool:
        """Remember the answer of a repeatable change; False when the same request has been answered already."""
        return item.request is None or await store.keep_first(tx, item.request)
