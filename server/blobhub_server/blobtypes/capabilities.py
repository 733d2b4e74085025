"""The capabilities that blob types offer each other: each a protocol, and the values it speaks of.

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
    """What is to be executed, where, with what, why, and on whose behalf.

    `revision` is a reference to the revision that has the definition, followed when it is invoked: `acme/pipeline@default`
    is the default of that time. `definition` is an alias or an id, `inputs` are JSON values by alias. `session` is the alias
    of the session to execute it in, which is made where the blob has no open one of that alias; empty for a new session.

    `cause` is the id of what this is done for, a UUID: a firing's, say. `actor_id` is whom it is done for
    (`Caller.actor_id`).
    """

    cause: str
    actor_id: str
    revision: str
    definition: str
    session: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoked:
    """The execution that an invocation has started, and the session it is in."""

    execution_id: str
    session_id: str


@runtime_checkable
class Invocable(Protocol):
    """Something that can be invoked: definitions, which become executions."""

    async def prepare(self, invocation: Invocation) -> None:
        """Read and compile what would be invoked now, before the transaction, so that nobody waits for that in it.

        This may be left out, and refuses nothing: `invoke` looks at everything anew. Raises InvalidReference, ContentLost.
        """

    async def invoke(self, tx: Transaction, invocation: Invocation) -> Invoked:
        """Start an execution as a part of a transaction. It runs once that is committed, and never if it is not.

        A cause starts one execution: one that comes again is answered with the first. The actor must be able to write to
        the blob, as things are now.

        Raises PermissionDenied, which also stands for a blob that does not exist; InvalidReference, Renamed, NotFound,
        WrongBlobType, InvalidValue, LimitExceeded, and what the offering type refuses with, a BlobHubError each. Then
        nothing of it has happened, and the transaction can go on: to record the refusal, say.
        """
