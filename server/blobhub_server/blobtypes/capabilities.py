"""The capabilities that blob types offer each other: protocols, and the values they use.

A type that needs one names the protocol in `needs` and finds an object of it in `given`. It does not know which type offers
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from blobhub_server.db.engine import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What to execute, in which session, with which inputs, for which cause, and on whose behalf.

    `revision` is a reference to the revision that has the definition. It is resolved at the invocation, so
    `acme/pipeline@default` is the default of that time. `definition` is an alias or an id. `inputs` are JSON values by
    alias. `session` is the alias of the session to execute it in, which is created when the blob has no open session
    of that alias; empty for a new session.

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
    """The execution that an invocation started, and its session."""

    execution_id: str
    session_id: str


@runtime_checkable
class Invocable(Protocol):
    """Something that can be invoked: definitions, which become executions."""

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
