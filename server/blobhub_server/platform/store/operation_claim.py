"""Claims on operations: which server runs which, and until when it is taken to be alive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.now import now
from blobhub_server.db.prepared import Prepared, lock_rows
from blobhub_server.db.presence import blob_is_there
from blobhub_server.db.records import Mapper, Scalar
from blobhub_server.db.schema import Id, Time
from blobhub_server.platform.rules.operation import Operation, OperationState
from blobhub_server.platform.store.operation import IS_BEGUN, IS_OPEN, OPERATION, operations

PENDING, RUNNING = OperationState.PENDING, OperationState.RUNNING


def _is_free_for(server_id: str) -> sa.ColumnElement[bool]:
    """The condition that an open operation waits, or that the lease of the server which ran it has run out."""
    abandoned = (operations.c.state == RUNNING, operations.c.server_id != server_id, operations.c.lease_until <= now())
    return sa.or_(operations.c.state == PENDING, sa.and_(*abandoned))


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits in an organization, and how many operations of it run. `fresh_id` is the oldest that no server has begun,
    `suspect_id` the oldest under which one went down.
    """

    organization_id: str
    running: int
    fresh_id: str | None
    suspect_id: str | None


async def list_waiting(
    tx: Transaction, server_id: str, kinds: Sequence[str], *, after: str, max_organizations: int
) -> list[Waiting]:
    """The next organizations, by their ids, in which operations of some kinds wait for a server.

    It goes from each organization to the next by the index of what is open, and reads of each the first that waits and what
    has begun. So it takes as long for a million operations as for one; but those of deleted blobs are passed over one by one
    until they are collected.
    """
    waits = (IS_OPEN, _is_free_for(server_id), operations.c.kind.in_(kinds), blob_is_there(operations.c.blob_id))

    def first_beyond(organization_id: sa.ColumnElement[str]) -> sa.ScalarSelect[str]:
        beyond = sa.select(operations.c.organization_id).where(*waits, operations.c.organization_id > organization_id)
        return beyond.order_by(operations.c.organization_id, operations.c.id).limit(1).scalar_subquery()

    first = sa.select(
        first_beyond(sa.literal(after, Id())).label("organization_id"), sa.literal(1, sa.Integer).label("number")
    ).cte("organizations_that_wait", recursive=True)
    own = first.alias("last_organization")
    is_next = (own.c.organization_id.is_not(None), own.c.number < max_organizations)
    found = first.union_all(sa.select(first_beyond(own.c.organization_id), own.c.number + 1).where(*is_next))

    in_it = operations.c.organization_id == found.c.organization_id
    first_id = sa.select(operations.c.id).where(in_it, *waits).order_by(operations.c.id).limit(1)
    fresh = first_id.where(operations.c.attempts == 0).scalar_subquery()
    suspect = first_id.where(IS_BEGUN).scalar_subquery()
    runs = (IS_OPEN, IS_BEGUN, ~_is_free_for(server_id))
    running = sa.select(sa.func.count(operations.c.id)).where(in_it, *runs).scalar_subquery()
    query = (
        sa.select(found.c.organization_id, running, fresh, suspect)
        .where(found.c.organization_id.is_not(None))
        .order_by(found.c.organization_id)
    )
    rows = (await tx.execute(query)).all()
    return [Waiting(organization_id=row[0], running=int(row[1]), fresh_id=row[2], suspect_id=row[3]) for row in rows]


async def claim(tx: Transaction, operation_id: str, server_id: str, lease: timedelta, now_: datetime) -> Operation | None:
    """Take an operation that waits, or whose server's lease ran out; None when it does not, or another server is at it.

    The attempt is counted with that, so a server that goes down under it is known of.
    """
    free = (
        sa.select(operations.c.id)
        .where(operations.c.id == operation_id, IS_OPEN, _is_free_for(server_id))
        .with_for_update(key_share=True, skip_locked=True)
    )
    values = {
        "state": RUNNING,
        "stage": "",
        "done_millionths": None,
        "start_time": now_,
        "sequence": operations.c.sequence + 1,
        "fence": operations.c.fence + 1,
        "attempts": operations.c.attempts + 1,
        "server_id": server_id,
        "lease_until": _us_from_now(lease),
    }
    taking = operations.update().where(operations.c.id.in_(free)).values(values).returning(*OPERATION.columns)
    found = OPERATION.all(await tx.execute(taking))
    return found[0] if found else None


def _us_from_now(span: timedelta) -> sa.ColumnElement[int]:
    """The time so long after now, in microseconds as `Time` keeps it."""
    return sa.type_coerce(now(), sa.BigInteger) + sa.literal(span // timedelta(microseconds=1), sa.BigInteger)


@dataclass(frozen=True, slots=True)
class Claimed:
    """An operation that a server has claimed, with the fence."""

    id: str
    fence: int


_CLAIMED = Mapper(Claimed, operations)
_MINE = (operations.c.server_id == sa.bindparam("server"), IS_OPEN)
_LIST_CLAIMED = Prepared(_CLAIMED.select().where(*_MINE, blob_is_there(operations.c.blob_id)), _CLAIMED)


async def list_claimed(tx: Transaction, server_id: str) -> list[Claimed]:
    """The operations that a server has claimed and whose blobs are there."""
    return await tx.all(_LIST_CLAIMED, server=server_id)


async def renew(tx: Transaction, server_id: str, lease: timedelta) -> list[Claimed]:
    """Renew a server's claims, from now on; return them."""
    own = operations.update().where(operations.c.server_id == server_id, IS_OPEN)
    renewing = own.values(lease_until=_us_from_now(lease)).returning(*_CLAIMED.columns)
    return _CLAIMED.all(await tx.execute(renewing))


async def expire_all(tx: Transaction) -> None:
    """Let all claims run out. Only for a database that no other server can have open."""
    await tx.execute(operations.update().where(operations.c.state == RUNNING).values(lease_until=now()))


_NEXT_END = Prepared(
    sa.select(operations.c.lease_until)
    .where(operations.c.lease_until.is_not(None), operations.c.server_id != sa.bindparam("server"))
    .order_by(operations.c.lease_until)
    .limit(1),
    Scalar(datetime),
)
_NOW = Prepared(sa.select(now().label("now")), Scalar(datetime))


async def seconds_to_takeover(tx: Transaction, server_id: str) -> float | None:
    """How long until the first claim of another server runs out, if it is not renewed; None when there is none."""
    end = await tx.first(_NEXT_END, server=server_id)
    return None if end is None else (end - await tx.one(_NOW)).total_seconds()


_OWNED = (
    operations.c.id == sa.bindparam("operation"),
    operations.c.fence == sa.bindparam("claim"),
    operations.c.state == RUNNING,
)
_LOCK = Prepared(lock_rows(sa.select(operations.c.id).where(*_OWNED)), Scalar(str))


async def lock(tx: Transaction, claimed: Operation) -> bool:
    """Lock an operation until the transaction ends; False when it is not claimed under this fence any more, or has ended."""
    return await tx.first(_LOCK, operation=claimed.id, claim=claimed.fence) is not None


_REPORT = Prepared(
    operations.update()
    .where(*_OWNED)
    .values(
        stage=sa.bindparam("new_stage"),
        done_millionths=sa.bindparam("millionths"),
        sequence=operations.c.sequence + 1,
    )
    .returning(operations.c.id),
    Scalar(str),
)


async def report(tx: Transaction, claimed: Operation, stage: str, millionths: int | None) -> bool:
    """Keep how far an operation has come. Answers as `lock`."""
    found = await tx.first(_REPORT, operation=claimed.id, claim=claimed.fence, new_stage=stage, millionths=millionths)
    return found is not None


_FREED = {"sequence": operations.c.sequence + 1, "server_id": sa.null(), "lease_until": sa.null()}
_GIVEN_BACK = {
    "state": PENDING,
    "stage": "",
    "done_millionths": sa.null(),
    "attempts": operations.c.attempts - sa.bindparam("forgiven", type_=sa.BigInteger),
}
_RELEASE = Prepared(operations.update().where(*_OWNED).values(_FREED | _GIVEN_BACK))


async def release(tx: Transaction, claimed: Claimed | Operation, *, counts: bool) -> None:
    """Give an operation back, for any server to run it from its begin. Unless it `counts`, there was no such attempt."""
    await tx.run(_RELEASE, operation=claimed.id, claim=claimed.fence, forgiven=int(not counts))


_END = Prepared(
    operations.update()
    .where(*_OWNED)
    .values(
        _FREED
        | {
            "state": sa.bindparam("new_state", type_=operations.c.state.type),
            "end_time": sa.bindparam("now", type_=Time()),
            "error": sa.bindparam("new_error", type_=sa.LargeBinary()),
            "response": sa.bindparam("new_response", type_=sa.LargeBinary()),
        }
    )
)


async def succeed(tx: Transaction, claimed: Operation, response: bytes, time: datetime) -> None:
    """End an operation, which the caller has locked, with its response."""
    state = OperationState.SUCCEEDED
    row = {"new_state": state, "new_error": None, "new_response": response}
    await tx.run(_END, operation=claimed.id, claim=claimed.fence, now=time, **row)


async def fail(tx: Transaction, claimed: Operation, error: bytes, time: datetime) -> None:
    """End an operation with an error, if it is still claimed under this fence."""
    row = {"new_state": OperationState.FAILED, "new_error": error, "new_response": None}
    await tx.run(_END, operation=claimed.id, claim=claimed.fence, now=time, **row)
