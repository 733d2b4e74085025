"""The contract of a runtime, on one page: what the services need from whatever runs executions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from blobhub_server.blobtypes.contract import RevisionView, Settlement
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import BlobHubError
from blobhub_server.workflow.components.awaits import Await
from blobhub_server.workflow.components.child import Child
from blobhub_server.workflow.definitions.finder import Found
from blobhub_server.workflow.rules.child import Origin
from blobhub_server.workflow.rules.execution import DEFAULT_STEP_LIMIT, Cause, Execution
from blobhub_server.workflow.rules.session import Session
from blobhub_server.workflow.store.execution import LockedExecution

StartWork = Callable[[Transaction, Execution], Awaitable[Sequence[Settlement]]]
"""Work in the transaction of a start: `await work(tx, execution)`, where the execution is as that transaction makes it.

It returns settlements, which are written for all units together at the end of the transaction, because they share one lock.
The transaction may be tried again, and the work with it.
"""


EndListener = Callable[[Transaction, Sequence[Execution]], Awaitable[None]]
"""Hears, in the transaction of their ends, of executions that were started by firings: `await on_end(tx, ended)`."""


IsOpen = Callable[[LockedExecution], bool | None]
"""Whether a try at a step is open in its execution, whose row is locked; None where that is not known yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What to start: a definition (alias or id), with inputs by alias, in a session.

    The definition is one of the session's revision, or of `revision`, which may belong to any blob: the caller has checked
    that it may be run. `actor_id` is on whose behalf (`Caller.actor_id`). `cause` is what the execution is started for; None
    for a start that cannot be repeated. `parent` is the execution whose step starts it.
    """

    session: Session
    definition: str
    input_data: Mapping[str, Any]
    actor_id: str
    cause: Cause | None
    revision: RevisionView | None = None
    timeout: timedelta | None = None
    step_limit: int = DEFAULT_STEP_LIMIT
    parent: Execution | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedStart:
    """A start whose definition has been read and compiled. That takes too long for a transaction that others wait for.

    `first` is the execution that its cause has started before, if any; then there is no definition.
    """

    start: Start
    definition: Found | None
    first: Execution | None


class Children(Protocol):
    """Starts executions from steps of others."""

    async def start(self, child: Child, parent: Execution, origin: Origin, is_open: IsOpen) -> Await:
        """Start an execution, unless its origin has started one before; return the await of its end.

        Once this is durable, a message will tell the parent of the end. Nothing is started where the try is not open any
        more. Where the storage is away, this waits for it. Raises BlobHubError.
        """


class Runtime(Protocol):
    """Runs executions. Each reaches a terminal state exactly once, whatever happens to the server.

    Stops and signals reach a running execution through its inbox (`runtime/inbox.py`).
    """

    async def start(self, start: Start, work: StartWork | None = None) -> Execution:
        """Start an execution; return it once its start is durable, together with what `work` does.

        When the cause has started one before, that is returned and nothing is done. Raises NotFound,
        DefinitionNotRunnable, InvalidValue, PermissionDenied, SessionNotOpen, LimitExceeded.
        """

    async def prepare(self, start: Start) -> PreparedStart:
        """Prepare for `join`, before the transaction: find, read and compile the definition.

        Raises NotFound, DefinitionNotRunnable, InvalidValue, SessionNotOpen.
        """

    async def join(self, tx: Transaction, prepared: PreparedStart, work: StartWork | None = None) -> Execution:
        """Start an execution as a part of a transaction, with `work`; return it. It runs after the commit, never without it.

        The definition is the prepared one. When the cause has started one before, that is returned. Raises PermissionDenied,
        SessionNotOpen, LimitExceeded, and NotFound when the definition is of another revision than the session's and that
        revision is gone; nothing is written then.
        """

    async def join_all(self, tx: Transaction, prepared: Sequence[PreparedStart]) -> Sequence[Execution | BlobHubError]:
        """Start several in few statements; return for each its execution, or what `join` would raise.

        A transaction that starts executions in several sessions does it with one call: they are locked in the order of
        their ids, or it may have to be tried again after a deadlock.
        """

    def deferred(self) -> AbstractContextManager[None]:
        """Have what `join_all` starts meanwhile run when the block is left, or after some seconds.

        For many more transactions than one: all is started before most of it runs.
        """

    async def get_ended(self, execution_id: str) -> Execution:
        """An execution whose log has ended, from memory or, when a watcher was quicker than the runner, from its row."""

    def listen(self, on_end: EndListener) -> None:
        """Have `on_end` called with executions that were started by firings, in the transactions that store their ends.

        An execution that ends in the transaction of its start is not told.
        """
