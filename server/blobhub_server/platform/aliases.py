"""Taking, changing and giving up aliases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import IntegrityError

from blobhub_server.db.engine import Transaction
from blobhub_server.errors import AlreadyExists
from blobhub_server.platform.store import alias as store


@asynccontextmanager
async def claimed(tx: Transaction, kind: str, parent_id: str, alias: str, resource_id: str) -> AsyncIterator[None]:
    """Around the statement that gives `alias` to a resource. Raises AlreadyExists when it is, or was, another's.

    Who gave the alias up is looked for after the statement: a unique index has by then made it wait for them.
    """
    try:
        async with tx.savepoint():
            yield
    except IntegrityError:
        raise AlreadyExists(kind, alias) from None
    holder = await store.holder(tx, parent_id, alias)
    if holder is not None and holder != resource_id:
        raise AlreadyExists(kind, alias)
    if holder is not None:
        await store.take_back(tx, parent_id, alias)


@asynccontextmanager
async def renamed(
    tx: Transaction, kind: str, parent_id: str, old: str, new: str | None, resource_id: str
) -> AsyncIterator[None]:
    """Around the statement that updates a resource, giving it `new` for its `old` alias unless `new` is None."""
    if new is None:
        yield
        return
    async with claimed(tx, kind, parent_id, new, resource_id):
        yield
    await store.give_up(tx, parent_id, old, resource_id)
