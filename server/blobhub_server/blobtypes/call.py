"""A call, as its handler gets it.

gRPC, the HTTP port and tests call the same handlers, each as `await service.GetBlob(request, call)`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from blobhub_server.blobtypes.access import ANONYMOUS, NOWHERE, Caller, Place, Resource_co, Role
from blobhub_server.blobtypes.contract import Settlement
from blobhub_server.db.engine import Transaction

Answer = TypeVar("Answer", bound=Message)
Response = TypeVar("Response")


@dataclass(slots=True, kw_only=True, eq=False)
class Call(Generic[Resource_co]):
    """A call. The gate fills it in step by step; handlers get it once it is admitted.

    `resource` is what the request refers to; None for methods whose permission is not about a resource. `place` is where
    access to it was decided, and `role` is the role that the caller holds there, whether or not the place is public.
    `further_resources` are the others that the method's access rule names. `reference` is the kind of the resource, and the
    text that the request names it by.

    `recorded` says that the audit log has an entry for the call. `repeatable` says that two same calls may make the change
    at the same time, and that both get the answer that was remembered first. `last_sequence` is the number of the last event
    that a watch has handed to its stream.
    """

    method: str
    request: Message
    resource: Resource_co
    changes: Changes
    reference: tuple[str, str] = ("", "")
    caller: Caller = ANONYMOUS
    place: Place = NOWHERE
    role: Role = Role.NONE
    further_resources: Sequence[Resource_co] = ()
    recorded: bool = False
    repeatable: bool = False
    last_sequence: int | None = None

    @property
    def request_id(self) -> str:
        """The request's id in lower case, because ids are compared without regard to case; empty when it has none."""
        request_id: str = getattr(self.request, "request_id", "")
        return request_id.lower()

    @property
    def idempotency_key(self) -> str | None:
        """The idempotency key: different for every request, the same when it is repeated; None without a `request_id`.

        At most 160 characters.
        """
        return f"{self.caller.identity} {self.method} {self.request_id}" if self.request_id else None

    async def once(self, make: Callable[[Transaction], Awaitable[Answer]]) -> Answer:
        """Run `make` in a transaction, and write the audit log's entry and the answer to remember there.

        A repeated request does not come here: it gets its remembered answer. When the same request runs twice at the same
        time, one of the two fails, with IntegrityError or whatever `make` raises, and gets the other's answer. A caller that
        goes away does not interrupt the transaction.
        """
        return await self.changes.once(self, make)

    def settlement(self, answer: Message) -> Settlement:
        """For a change that is made outside `once`: what `Host.settle` has to write in the transaction of the change."""
        return self.changes.settlement(self, answer)

    async def first_answer(self, make: Callable[[], Awaitable[Response]], read: Callable[[bytes], Response]) -> Response:
        """The remembered answer, as `read` makes it from bytes; for a new request what `make` answers.

        For streams, which go on from there. The gate does this for all other calls. Raises RequestIdReused.
        """
        return await self.changes.first_answer(self, make, read)


class Changes(Protocol):
    """Makes the changes of calls. `Call` says what each method promises."""

    async def once(self, call: Call[object], make: Callable[[Transaction], Awaitable[Answer]]) -> Answer:
        """Make a change, its audit entry and its remembered answer in one transaction."""

    def settlement(self, call: Call[object], answer: Message) -> Settlement:
        """Make the audit entry and the remembered answer of a change that is made elsewhere."""

    async def first_answer(
        self, call: Call[object], make: Callable[[], Awaitable[Response]], read: Callable[[bytes], Response]
    ) -> Response:
        """Answer from memory, or by making the answer."""
