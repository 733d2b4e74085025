"""The contract of a runtime, on one page: what the services ask of whatever runs executions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from blobhub_server.blobtypes.contract import Settled
from blobhub_server.db.engine import Transaction
from blobhub_server.workflow.rules.execution import STEP_LIMIT, Cause, Execution
from blobhub_server.workflow.rules.session import Session

Beside = Callable[[Transaction, Execution], Awaitable[Sequence[Settled]]]
"""Work in the transaction of a start: `await beside(tx, execution)`, where the execution is as that transaction makes it.

It returns what calls leave in the audit log and among the remembered answers: that is written for all units together, at
the end of the transaction, since it takes turns on a lock. The transaction may be done again, and the work with it.
"""

Remember = Callable[[Execution], Settled]
"""Makes, from the execution as it will be, what a call leaves in the audit log and among the remembered answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What to start: a definition (alias or id), with inputs by alias, in a session.

    The definition is one of the session's revision, or of `revision_id`, which may belong to any blob: the caller has
    checked that it may be run. `cause` is what the execution is started for; None for what nobody can ask for again.
    """

    session: Session
    definition: str
    input_data: Mapping[str, Any]
    cause: Cause | None
    revision_id: str | None = None
    timeout: timedelta | None = None
    step_limit: int = STEP_LIMIT


class Runtime(Protocol):
    """Runs executions: what is started reaches a terminal state exactly once, whatever happens to the server."""

    async def start(self, start: Start, beside: Beside | None = None) -> Execution:
        """Start an execution; return it once its start is durable, together with what `beside` does.

        Where the cause has started one before, that is returned and nothing is done. Raises NotFound,
        DefinitionNotRunnable, InvalidValue, SessionNotOpen, LimitExceeded, OwnershipLost.
        """

    async def join(self, tx: Transaction, start: Start) -> Execution:
        """Start an execution as a part of a transaction; return it. It runs once that is committed, and never if it is not.

        Where the cause has started one before, that is returned. Raises what `start` raises, when at most the session has
        been claimed for this server.
        A transaction that starts executions in several sessions goes through them by id, or is ready to be done again.
        """

    async def stop(self, execution_id: str, remember: Remember) -> Execution:
        """Ask an execution to stop; return it once that is durable. Raises ExecutionEnded, OwnershipLost."""

    async def ended(self, execution_id: str) -> Execution:
        """An execution whose log has ended. A watcher may have read that before it was told here: then its row has it."""

    async def close(self, tx: Transaction, session_id: str) -> Session:
        """Let a session take nothing new, and close it if nothing runs in it; return it as it is then.

        What does run is stopped after the commit, and the last of it closes the session. Raises PermissionDenied.
        """

    def cut_off(self, session_ids: set[str]) -> None:
        """End what runs here in sessions that are gone."""
