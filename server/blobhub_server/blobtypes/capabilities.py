"""The capabilities that blob types offer each other: protocols, and the values they use.

A type that needs one names the protocol in `needs` and finds an object of it in `given`. It does not know which type offers
it. `Infers` is in a module of its own (`inference.py`), for components.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from blobhub_server.blobtypes.inference import Infers
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import BlobHubError

__all__ = ["EndListener", "Infers", "Invocable", "Invocation", "InvocationResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What to execute, in which session, with which inputs, for which cause, and on whose behalf.

    `revision` is a reference to the revision that has the definition. It is resolved at the invocation, so
    `acme/pipeline@default` is the default of that time. `definition` is an alias or an id. `inputs` are JSON values by
    alias. `session` is the alias of the session to execute it in, which is created when the blob has no open session
    of that alias; empty for a new session, which is closed when the execution has ended.

    `cause` is the UUID of what this is done for, such as a firing. `actor_id` is on whose behalf (`Caller.actor_id`).
    """

    cause: str
    actor_id: str
    revision: str
    definition: str
    session: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationResult:
    """The execution that an invocation started, its session, and how far it has come.

    `state` is `pending`, `running`, `waiting`, `stopping`, or, with an `end_time`, `completed`, `failed` or `stopped`.
    """

    cause: str
    execution_id: str
    session_id: str
    state: str
    end_time: datetime | None


EndListener = Callable[[Transaction, Sequence[InvocationResult]], Awaitable[None]]
"""Hears which invocations have ended: `await on_end(tx, ended)`."""


@runtime_checkable
class Invocable(Protocol):
    """Something that can be invoked: definitions, which become executions."""

    blob_type: str
    """The type of the blobs that have the definitions."""

    def listen(self, on_end: EndListener) -> None:
        """Have `on_end` called with the invocations that end, in the transactions that make their ends durable.

        Call this while the own type is opened. Any server may commit an end, which is heard there, once: what `on_end`
        writes is there with the end or not at all. It gets everybody's invocations and picks its own out by their causes,
        so it has to be quick, and looks them up all at once. It locks no row that is locked while something is invoked. What
        it raises undoes the end, which is tried again. An execution that ends in the transaction of its `invoke` is told by
        what that returns, and one that is deleted ends untold.
        """

    async def prepare(self, invocation: Invocation) -> None:
        """Read and compile the definition before the transaction, so that the transaction need not wait for that.

        This is optional. It does nothing where `invoke` would refuse, the actor's role first of all, and refuses nothing
        itself; `invoke` checks everything anew. Raises ContentLost.
        """

    async def invoke(self, tx: Transaction, invocation: Invocation) -> InvocationResult:
        """Start an execution as a part of a transaction. It runs after the commit, and never without it.

        A cause starts one execution: the same cause again returns the first, and is refused for another blob. The actor
        needs the role `write` on the blob at this moment.

        Raises PermissionDenied, also for a blob that does not exist; InvalidReference, Renamed, NotFound, WrongBlobType,
        InvalidValue, LimitExceeded, and other subclasses of BlobHubError of the offering type. Nothing is written then, and
        the transaction can go on, for example to record the refusal.
        """

    async def invoke_all(
        self, tx: Transaction, invocations: Sequence[Invocation]
    ) -> Mapping[str, InvocationResult | BlobHubError]:
        """Start several executions as a part of a transaction, in few statements; what came of each, by its cause.

        Each is what `invoke` would return, or what it would raise. The causes are different ones. A transaction that invokes
        more than once does it with this, or may have to be tried again after a deadlock.
        """

    def deferred(self) -> AbstractContextManager[None]:
        """Have what `invoke_all` starts meanwhile run when the block is left, or after some seconds.

        For whoever invokes so much that it takes many transactions: all of it is started before most of it runs.
        """

    async def find(self, tx: Transaction, causes: Collection[str]) -> Mapping[str, InvocationResult]:
        """What has become of invocations, by their causes; nothing for those that started nothing or were deleted."""

    async def stop(self, tx: Transaction, cause: str, actor_id: str) -> InvocationResult | None:
        """Ask what a cause has started to stop, as a part of a transaction; return it as it is then, None if there is none.

        It ends some time after the commit. What is stopping or has ended stays as it is. The actor needs the role `write` on
        the blob at this moment. A transaction that also invokes does that first. Raises PermissionDenied.
        """
