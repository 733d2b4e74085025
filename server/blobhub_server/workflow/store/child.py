"""Executions that steps of others have started, and that have not ended."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.prepared import Prepared, is_one_of
from blobhub_server.db.records import Scalar
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.store.execution import EXECUTION, RUNNING, SELECT, executions

_CHILD = executions.c.parent_id.is_not(None)
_COUNT = Prepared(
    sa.select(sa.func.count().label("children"))
    .select_from(executions)
    .where(executions.c.parent_id == sa.bindparam("parent"), RUNNING),
    Scalar(int),
)
_OF_PARENTS = Prepared(SELECT.where(is_one_of(executions.c.parent_id, "ids"), RUNNING).order_by(executions.c.id), EXECUTION)
_AMONG = Prepared(SELECT.where(is_one_of(executions.c.id, "ids"), _CHILD, RUNNING).order_by(executions.c.id), EXECUTION)


async def count(tx: Transaction, parent_id: str) -> int:
    """How many children of an execution have not ended."""
    return await tx.one(_COUNT, parent=parent_id)


async def find_of(tx: Transaction, parent_ids: Sequence[str]) -> list[Execution]:
    """The children of some executions that have not ended."""
    return await tx.all(_OF_PARENTS, ids=parent_ids)


async def find_among(tx: Transaction, execution_ids: Sequence[str]) -> list[Execution]:
    """Those of some executions that are children and have not ended."""
    return await tx.all(_AMONG, ids=execution_ids)


_FORGET = Prepared(executions.update().where(executions.c.id == sa.bindparam("child")).values(parent_id=None))


async def forget_parents(tx: Transaction, execution_ids: Sequence[str]) -> None:
    """Have executions be no children any more."""
    await tx.run_each(_FORGET, [{"child": id_} for id_ in execution_ids])


async def most(tx: Transaction, blob_id: str) -> int:
    """The number of children that have not ended of the blob's execution that has the most."""
    parents = sa.select(executions.c.id).where(executions.c.blob_id == blob_id, RUNNING)
    query = sa.select(sa.func.count()).where(executions.c.parent_id.in_(parents), RUNNING).group_by(executions.c.parent_id)
    return max((await tx.execute(query)).scalars(), default=0)


async def deepest(tx: Transaction, blob_id: str) -> int:
    """How many executions are above the blob's execution that has the most, of those that have not ended."""
    query = sa.select(sa.func.max(executions.c.depth)).where(executions.c.blob_id == blob_id, RUNNING)
    return (await tx.execute(query)).scalar() or 0
