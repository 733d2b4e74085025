"""Operations, for blob types: long work that a call begins, and that goes on after its answer.

A call begins one in its transaction with `host.operations.begin`. After the commit some server runs the performer that
the type has brought for the kind, `Opened.operations`; again from its begin, where a server goes down meanwhile. What comes
of it is written in the transaction that ends the operation, once. When the actor has lost the role `write` on the blob by
then, the operation fails with PermissionDenied instead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from blobhub.v1 import operation_pb2
from google.protobuf.message import Message

from blobhub_server.db.engine import Transaction

if TYPE_CHECKING:
    from blobhub_server.blobtypes.contract import RevisionView

Report = Callable[[str, float | None], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Work:
    """What a performer is to do: the operation, and what it was begun with.

    `data` is what `begin` was given. `digest` is that of the object it needs, empty for none.
    """

    operation_id: str
    kind: str
    organization_id: str
    blob_id: str
    revision_id: str
    actor_id: str
    data: Mapping[str, Any]
    digest: str
    on_report: Report

    async def report(self, stage: str, done: float | None = None) -> None:
        """Tell how far the work has come: what it is doing, in a word or two, and how much is done of all, from 0 to 1.

        It may be called often: what comes a moment after another report of the same stage is left out. That the storage is
        in trouble is no error here.
        """
        await self.on_report(stage, done)


Finish = Callable[[Transaction], Awaitable[Message]]
"""Writes what came of the work, and returns the operation's response: in the transaction that ends the operation, with its
blob locked. Nothing else is to write for the operation. What it raises undoes the transaction, and the operation fails with
it as if the performer had raised it. It is called again, in another transaction, where one could not be committed."""

Perform = Callable[[Work], Awaitable[Finish]]
"""Does the work. It writes nothing to the blob: that is for what it returns.

A BlobHubError that it raises fails the operation, with its code, reason, metadata and message. But for trouble of the ground
(StorageUnavailable, Overloaded, or anything that is UNAVAILABLE): then it is called again, after a pause, for as long as
that lasts. Any other exception is logged under an id, and the operation fails with INTERNAL and that id.

It is cancelled, as tasks are, when the operation is cancelled or its blob is gone, when another server has taken it over,
and when this server shuts down. It has to end soon then, and may be called with the same work again, on this server or
another one.
"""


class Operations(Protocol):
    """Begins operations, and finds them."""

    async def begin(
        self,
        tx: Transaction,
        *,
        kind: str,
        revision: RevisionView,
        actor_id: str,
        data: Mapping[str, Any],
        digest: str = "",
    ) -> operation_pb2.Operation:
        """Store an operation on a revision as part of a transaction, and return it, for the answer of the call.

        It runs after the commit. It locks the blob. `data` is JSON, and small: it names what the performer needs. `digest`
        is that of an object which is kept for as long as the operation is open. Where the call has a `request_id`, a
        repeated call gets the first operation, as it gets the whole answer. Raises KeyError for a kind that no type
        performs, NotFound when the revision is gone, PermissionDenied when the blob is, LimitExceeded for
        `blob.open_operations`.
        """

    async def find(self, tx: Transaction, operation_ids: Collection[str]) -> Mapping[str, operation_pb2.Operation]:
        """Some operations as they are now, by id; those that are kept."""
