"""Executions that rest, by when they are to be woken. Each is found by an index, however many there are."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.prepared import Prepared, is_one_of
from blobhub_server.db.records import Scalar
from blobhub_server.db.schema import Time
from blobhub_server.workflow.rules.execution import ACTIVE, NEVER, Execution
from blobhub_server.workflow.store.execution import EXECUTION, RUNNING, THERE, executions
from blobhub_server.workflow.store.owner import RESTS

_OWN = executions.c.owner == sa.bindparam("server")
_wake = executions.c.wake_time
_ORDER = (_wake, executions.c.id)
Key = tuple[datetime, str]
"""When an execution is to be woken, and its id."""
BEGINNING: Key = (ACTIVE, "")

_DUE = Prepared(
    EXECUTION.select()
    .where(
        *(_OWN, RUNNING, RESTS, _wake <= sa.bindparam("end", type_=Time()), THERE),
        sa.tuple_(*_ORDER) > sa.tuple_(sa.bindparam("after_time", type_=Time()), sa.bindparam("after_id")),
    )
    .order_by(*_ORDER)
    .limit(sa.bindparam("most", type_=sa.BigInteger)),
    EXECUTION,
)


async def due(tx: Transaction, server_id: str, end: datetime, *, after: Key = BEGINNING, limit: int) -> list[Execution]:
    """The executions of a server that rest until an instant or less, the soonest first."""
    return await tx.all(_DUE, server=server_id, end=end, after_time=after[0], after_id=after[1], most=limit)


_AMONG = Prepared(EXECUTION.select().where(is_one_of(executions.c.id, "ids"), _OWN, RUNNING, RESTS, THERE), EXECUTION)


async def among(tx: Transaction, server_id: str, execution_ids: Collection[str]) -> list[Execution]:
    """Those of some executions that a server owns and that rest."""
    return await tx.all(_AMONG, ids=sorted(execution_ids), server=server_id)


_NEXT = Prepared(
    sa.select(_wake)
    .where(_OWN, RUNNING, RESTS, _wake > sa.bindparam("after", type_=Time()), _wake < NEVER)
    .order_by(_wake)
    .limit(1),
    Scalar(datetime),
)


async def next_wake_time(tx: Transaction, server_id: str, after: datetime) -> datetime | None:
    """When the next execution of a server after an instant is to be woken; None when none is."""
    return await tx.first(_NEXT, server=server_id, after=after)
