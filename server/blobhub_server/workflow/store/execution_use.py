"""What executions that have not ended use, and that is kept for them."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from blobhub_server.blobtypes.values import Dependents
from blobhub_server.db.count import count_and_name
from blobhub_server.db.engine import Transaction
from blobhub_server.db.prepared import Prepared, is_one_of
from blobhub_server.db.presence import blob_is_there
from blobhub_server.db.records import Scalar
from blobhub_server.workflow.interpreter import TERMINAL
from blobhub_server.workflow.store.execution import RUNNING, STATES, executions

_RUNNING_STATES = [state for state in STATES if state not in TERMINAL]
_THERE = blob_is_there(executions.c.blob_id)
_DIGEST = executions.c.definition_digest
_RUNNING_DEFINITIONS = Prepared(sa.select(_DIGEST).where(is_one_of(_DIGEST, "digests"), RUNNING).distinct(), Scalar(str))


async def find_running_definitions(tx: Transaction, digests: Collection[str]) -> set[str]:
    """The definitions, among those of the given digests, that an execution has not ended with."""
    return {*await tx.all(_RUNNING_DEFINITIONS, digests=sorted(digests))}


async def dependents_on_revision(tx: Transaction, revision_id: str) -> Dependents:
    """The executions that run definitions of a revision and have not ended."""
    count, ids = await count_and_name(tx, executions.c.id, executions.c.revision_id == revision_id, RUNNING, _THERE)
    return Dependents(kind="running executions", count=count, ids=ids)


async def dependents_in_blob(tx: Transaction, blob_id: str) -> Dependents:
    """The executions that have not ended in the sessions of a blob, or by definitions of it in those of another."""
    # By their states, so that an index finds them among the many of a blob that have ended.
    in_sessions = sa.and_(executions.c.blob_id == blob_id, executions.c.state.in_(_RUNNING_STATES))
    in_blob = sa.or_(in_sessions, executions.c.definition_blob_id == blob_id)
    count, ids = await count_and_name(tx, executions.c.id, in_blob, RUNNING, _THERE)
    return Dependents(kind="running executions", count=count, ids=ids)
