"""Messages that executions have not taken in yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from blobhub_server.db.engine import Transaction
from blobhub_server.db.parts import delete_some
from blobhub_server.db.prepared import Prepared
from blobhub_server.db.records import Mapper, Pair, Scalar
from blobhub_server.db.schema import Choice, Id, Json, metadata
from blobhub_server.workflow.rules.message import Message, MessageKind
from blobhub_server.workflow.store.execution import executions

messages = sa.Table(
    "messages",
    metadata,
    sa.Column("execution_id", Id(), sa.ForeignKey("executions.id"), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", Choice(MessageKind, sa.String(16)), nullable=False),
    sa.Column("body", Json(), nullable=False),
)

_MESSAGE = Mapper(Message, messages)
_INSERT = Prepared(messages.insert())


async def insert(tx: Transaction, new: Sequence[Message]) -> None:
    """Store messages whose numbers were taken from their executions in this transaction."""
    await tx.run_each(_INSERT, [_MESSAGE.row(item) for item in new])


_WAITING = Prepared(
    sa.select(
        sa.func.count().label("count"), sa.func.coalesce(sa.func.sum(sa.func.length(messages.c.body)), 0).label("size")
    )
    .select_from(messages)
    .where(messages.c.execution_id == sa.bindparam("execution")),
    Pair(Scalar(int, "count"), Scalar(int, "size")),
)


async def measure(tx: Transaction, execution_id: str) -> tuple[int, int]:
    """How many messages to an execution wait, which a bound keeps few, and their bytes."""
    return await tx.one(_WAITING, execution=execution_id)


_TO_EXECUTION = Prepared(
    _MESSAGE.select().where(messages.c.execution_id == sa.bindparam("execution")).order_by(messages.c.number), _MESSAGE
)


async def list_for_execution(tx: Transaction, execution_id: str) -> list[Message]:
    """The messages to an execution, in order."""
    return await tx.all(_TO_EXECUTION, execution=execution_id)


_TO_SERVER = Prepared(
    _MESSAGE.select()
    .join(executions, executions.c.id == messages.c.execution_id)
    .where(executions.c.owner == sa.bindparam("server"))
    .order_by(messages.c.execution_id, messages.c.number),
    _MESSAGE,
)


async def list_for_server(tx: Transaction, server_id: str) -> list[Message]:
    """The messages to all executions that a server owns, those to each in order."""
    return await tx.all(_TO_SERVER, server=server_id)


_DELETE = Prepared(
    messages.delete().where(
        messages.c.execution_id == sa.bindparam("execution"), messages.c.number <= sa.bindparam("last_number")
    )
)


async def delete(tx: Transaction, taken: Mapping[str, int]) -> None:
    """Remove the messages to executions up to a number each."""
    await tx.run_each(_DELETE, [{"execution": id_, "last_number": number} for id_, number in taken.items()])


async def collect(tx: Transaction, execution_ids: Sequence[str], rows: int) -> int:
    """Remove so many messages to executions, which the caller has locked, at most; return how many were removed."""
    return await delete_some(tx, messages, messages.c.execution_id.in_(execution_ids), rows)
