"""Messages to executions that have not been taken into their logs yet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from blobhub_server.db.engine import Result, Transaction
from blobhub_server.db.schema import Id, Selected, metadata
from blobhub_server.workflow.rules.message import Message, MessageKind
from blobhub_server.workflow.store.execution import executions
from blobhub_server.workflow.store.session import of_blobs

messages = sa.Table(
    "messages",
    metadata,
    sa.Column("execution_id", Id(), sa.ForeignKey("executions.id"), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)


def _records(rows: Result) -> list[Message]:
    return [Message(id_, number, MessageKind(kind), json.loads(body)) for id_, number, kind, body in rows]


async def insert(tx: Transaction, new: Sequence[Message]) -> None:
    """Store messages whose numbers were taken from their executions in this transaction."""
    rows = [
        {"execution_id": item.execution_id, "number": item.number, "kind": item.kind.value, "body": json.dumps(item.body)}
        for item in new
    ]
    await tx.execute(messages.insert(), rows)


async def to_execution(tx: Transaction, execution_id: str) -> list[Message]:
    """The messages to an execution, in order."""
    query = messages.select().where(messages.c.execution_id == execution_id).order_by(messages.c.number)
    return _records(await tx.execute(query))


async def to_server(tx: Transaction, server_id: str) -> list[Message]:
    """The messages to all executions that a server owns, those to each in order."""
    query = (
        sa.select(messages)
        .join(executions, executions.c.id == messages.c.execution_id)
        .where(executions.c.owner == server_id)
        .order_by(messages.c.execution_id, messages.c.number)
    )
    return _records(await tx.execute(query))


_DELETE = messages.delete().where(
    messages.c.execution_id == sa.bindparam("of"), messages.c.number <= sa.bindparam("last_number")
)


async def delete(tx: Transaction, taken: Mapping[str, int]) -> None:
    """Remove the messages to executions up to a number each."""
    await tx.execute(_DELETE, [{"of": id_, "last_number": number} for id_, number in taken.items()])


async def delete_all(tx: Transaction, blob_ids: Selected) -> None:
    """Remove the messages to all executions of blobs. The caller has locked those that run."""
    own = sa.select(executions.c.id).where(executions.c.session_id.in_(of_blobs(blob_ids)))
    await tx.execute(messages.delete().where(messages.c.execution_id.in_(own)))
