"""The contract of a runtime, on one page: what the services ask of whatever runs executions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from blobhub_server.blobtypes.contract import RevisionView, Settled
from blobhub_server.db.engine import Transaction
from blobhub_server.workflow.definitions.finder import Found
from blobhub_server.workflow.rules.execution import STEP_LIMIT, Cause, Execution
from blobhub_server.workflow.rules.session import Session

Beside = Callable[[Transaction, Execution], Awaitable[Sequence[Settled]]]
"""Work in the transaction of a start: `await beside(tx, execution)`, where the execution is as that transaction makes it.

It returns what calls leave in the audit log and among the remembered answers: that is written for all units together, at
the end of the transaction, since it takes turns on a lock. The transaction may be done again, and the work with it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What to start: a definition (alias or id), with inputs by alias, in a session.

    The definition is one of the session's revision, or of `revision`, which may belong to any blob: the caller has checked
    that it may be run. `cause` is what the execution is started for; None for what nobody can ask for again.
    """

    session: Session
    definition: str
    input_data: Mapping[str, Any]
    cause: Cause | None
    revision: RevisionView | None = None
    timeout: timedelta | None = None
    step_limit: int = STEP_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedStart:
    """A start whose definition has been read and compiled, which is not to be done while others wait to write.

    `first` is the execution that its cause has started before, if any; then there is no definition.
    """

    start: Start
    definition: Found | None
    first: Execution | None


class Runtime(Protocol):
    """Runs executions: what is started reaches a terminal state exactly once, whatever happens to the server.

    What is asked of an execution after that comes by its inbox (`runtime/inbox.py`).
    """

    async def start(self, start: Start, beside: Beside | None = None) -> Execution:
        """Start an execution; return it once its start is durable, together with what `beside` does.

        Where the cause has started one before, that is returned and nothing is done. Raises NotFound,
        DefinitionNotRunnable, InvalidValue, PermissionDenied, SessionNotOpen, LimitExceeded.
        """

    async def prepare(self, start: Start, tx: Transaction | None = None) -> PreparedStart:
        """Make ready for `join`: find, read and compile the definition.

        Do it before the transaction; or in `tx` where the definition must be the one that this sees. Then others may wait
        for bytes to be read, unless the definition is at hand. Raises NotFound, DefinitionNotRunnable, InvalidValue,
        SessionNotOpen.
        """

    async def join(self, tx: Transaction, prepared: PreparedStart) -> Execution:
        """Start an execution as a part of a transaction; return it. It runs once that is committed, and never if it is not.

        The definition is as it was prepared. Where the cause has started one before, that is returned. Raises, when nothing
        has been written, PermissionDenied, SessionNotOpen, LimitExceeded, and NotFound where the definition is of another
        revision than the session's, and that is gone.
        A transaction that starts executions in several sessions goes through them by id, or is ready to be done again.
        """

    async def ended(self, execution_id: str) -> Execution:
        """An execution whose log has ended. A watcher may have read that before it was told here: then its row has it."""

    def cut_off(self, session_ids: set[str]) -> None:
        """Leave alone what runs here in sessions that are gone."""
