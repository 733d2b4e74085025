"""Which server owns an execution, and which executions no living server owns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.prepared import Prepared, is_one_of
from blobhub_server.db.records import Scalar
from blobhub_server.db.schema import Time
from blobhub_server.workflow.rules.execution import ACTIVE, NEVER, Execution
from blobhub_server.workflow.store.execution import RUNNING, THERE, executions, update
from blobhub_server.workflow.store.server import has_expired, select_living, servers

_owner = executions.c.owner
_IS_ACTIVE = executions.c.wake_time == ACTIVE
RESTS = executions.c.wake_time > ACTIVE


async def active_ids(tx: Transaction, server_id: str) -> set[str]:
    """The executions that a server owns and that have something to do, by id."""
    query = sa.select(executions.c.id).where(_owner == server_id, _IS_ACTIVE, RUNNING)
    return set((await tx.execute(query)).scalars())


_OWNED = Prepared(
    sa.select(executions.c.id).where(is_one_of(executions.c.id, "ids"), _owner == sa.bindparam("server"), RUNNING),
    Scalar(str),
)


async def owned(tx: Transaction, server_id: str, execution_ids: Collection[str]) -> set[str]:
    """Those of some executions, by id, that a server owns and that have not ended."""
    return {*await tx.all(_OWNED, ids=sorted(execution_ids), server=server_id)}


_NEXT_OWNER = Prepared(
    sa.select(_owner).where(_owner > sa.bindparam("after"), RUNNING).order_by(_owner).limit(1), Scalar(str)
)
_LIVING = Prepared(select_living(), Scalar(str))


async def gone_owners(tx: Transaction, server_id: str) -> Sequence[str]:
    """The servers that own executions which have not ended, and that are neither alive nor this one.

    Servers are few, and each is found by the index, however many executions it owns.
    """
    living, found, after = {server_id, *await tx.all(_LIVING)}, list[str](), ""
    while (owner := await tx.first(_NEXT_OWNER, after=after)) is not None:
        after = owner
        if owner not in living:
            found.append(owner)
    return found


def _of_gone(server_id: str, owner: str) -> sa.ColumnElement[bool]:
    """That an execution is one of a server that is gone, and not this one. A server may be back since it was found."""
    return sa.and_(_owner == owner, _owner != server_id, _owner.not_in(select_living()))


async def claim(tx: Transaction, server_id: str, owner: str, limit: int) -> list[Execution]:
    """Take over executions of a server that is gone which have something to do; raise their fences by one.

    A server keeps its own executions, also when its lease has run out: nobody else may have taken them over yet. Skips rows
    that are locked, which other servers are claiming or writing to. Those whose recoveries were counted come first.
    """
    # What was counted more often comes later, when the server has been up for longer: kills from outside soon after a start
    # then do not hit the same execution each time.
    order = (executions.c.recoveries == 0, executions.c.recoveries, executions.c.id)
    orphans = sa.select(executions.c.id).where(RUNNING, _IS_ACTIVE, _of_gone(server_id, owner), THERE)
    orphans = orphans.order_by(*order).limit(limit).with_for_update(key_share=True, skip_locked=True)
    claimed = await update(tx, executions.c.id.in_(orphans), owner=server_id, fence=executions.c.fence + 1)
    return sorted(claimed, key=lambda execution: (execution.recoveries == 0, execution.recoveries, execution.id))


def _us(column: sa.ColumnElement[datetime]) -> sa.ColumnElement[int]:
    return sa.type_coerce(column, sa.BigInteger)


async def adopt(tx: Transaction, server_id: str, owner: str, now: datetime, limit: int) -> int:
    """Take over executions of a server that is gone and that only rest, by their rows alone; return how many.

    Their fences are raised by one. Those that have something to do soonest come first. Where the clock of this server, which
    says `now`, is behind that of the one before, none rests longer for that.
    """
    orphans = sa.select(executions.c.id).where(RUNNING, RESTS, _of_gone(server_id, owner), THERE)
    orphans = orphans.order_by(executions.c.wake_time, executions.c.id).limit(limit)
    orphans = orphans.with_for_update(key_share=True, skip_locked=True)
    rest, wake = executions.c.rest_time, executions.c.wake_time
    sooner = sa.type_coerce(_us(wake) - _us(rest) + (now - ACTIVE) // timedelta(microseconds=1), Time())
    is_behind = sa.and_(rest > now, wake < NEVER)
    adopted = executions.update().where(executions.c.id.in_(orphans))
    adopted = adopted.values(
        owner=server_id,
        fence=executions.c.fence + 1,
        adopted=True,
        wake_time=sa.case((is_behind, sooner), else_=wake),
        rest_time=sa.case((rest > now, sa.literal(now, Time())), else_=rest),
    )
    return (await tx.execute_beside(adopted)).rowcount


async def forget_servers(tx: Transaction, expired: timedelta) -> None:
    """Remove servers whose leases ran out so long ago and that own no execution which has not ended.

    Skips those that another server removes at the same time, so that two which do never wait for each other.
    """
    owns = sa.exists().where(_owner == servers.c.id, RUNNING)
    gone = sa.select(servers.c.id).where(has_expired(expired), ~owns).with_for_update(of=servers, skip_locked=True)
    await tx.execute(servers.delete().where(servers.c.id.in_(gone)))
