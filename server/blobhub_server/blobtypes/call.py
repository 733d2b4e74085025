"""A call, as its handler gets it.

gRPC, the HTTP port and tests call the same handlers, each as `await service.GetBlob(request, call)`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from blobhub_server.blobtypes.access import ANONYMOUS, NOWHERE, Caller, Place, Resource_co, Role
from blobhub_server.blobtypes.contract import Settled
from blobhub_server.db.engine import Transaction

Answer = TypeVar("Answer", bound=Message)
Made = TypeVar("Made")


@dataclass(slots=True, kw_only=True, eq=False)
class Call(Generic[Resource_co]):
    """A call, as far as it has come; handlers get it once it is admitted.

    `resource` is what the request refers to, None for methods whose access is not held on a resource; `place` is where
    access to it was decided, and `role` the role that the caller holds there, not counting that it may be public. `also`
    has the further resources that the method's access rule names. `reference` is the kind of resource that the request
    names, and the words it does so in.

    `recorded` says that the audit log has the call; `repeatable` that its answer is whatever is remembered for it.
    """

    method: str
    request: Message
    resource: Resource_co
    changes: Changes
    reference: tuple[str, str] = ("", "")
    caller: Caller = ANONYMOUS
    place: Place = NOWHERE
    role: Role = Role.NONE
    also: Sequence[Resource_co] = ()
    recorded: bool = False
    repeatable: bool = False

    @property
    def key(self) -> str | None:
        """What tells the request from all others, and is the same when it is made again; None without a `request_id`.

        At most 160 characters.
        """
        request_id = getattr(self.request, "request_id", "")
        return f"{self.caller.identity} {self.method} {request_id}" if request_id else None

    async def once(self, make: Callable[[Transaction], Awaitable[Answer]]) -> Answer:
        """Run `make` in a transaction, and write the audit log's entry and the answer to remember there.

        A request that is made again under its `request_id` does not come here: it is answered from memory. Of two that
        come at the same time one fails, with IntegrityError or whatever `make` raises, and is answered like the other.
        A caller that goes away does not interrupt the transaction.
        """
        return await self.changes.once(self, make)

    def settlement(self, answer: Message) -> Settled:
        """For a change that is made outside `once`: what `Host.settle` is to write in the transaction of the change."""
        return self.changes.settlement(self, answer)

    async def first_answer(self, make: Callable[[], Awaitable[Made]], read: Callable[[bytes], Made]) -> Made:
        """What the request was answered with, `read` from memory; what `make` answers when it comes for the first time.

        For streams, which go on from there; all other calls come to their handler for the first time. Raises
        RequestIdReused.
        """
        return await self.changes.first_answer(self, make, read)


class Changes(Protocol):
    """What a call does changes with; `Call` says what each of these promises."""

    async def once(self, call: Call[object], make: Callable[[Transaction], Awaitable[Answer]]) -> Answer:
        """Make a change, its audit entry and its remembered answer in one transaction."""

    def settlement(self, call: Call[object], answer: Message) -> Settled:
        """Make the audit entry and the remembered answer of a change that is made elsewhere."""

    async def first_answer(
        self, call: Call[object], make: Callable[[], Awaitable[Made]], read: Callable[[bytes], Made]
    ) -> Made:
        """Answer from memory, or by making the answer."""
