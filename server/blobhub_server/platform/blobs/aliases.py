"""Taking and changing aliases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from blobhub_server.db.engine import IntegrityError, Transaction
from blobhub_server.errors import AlreadyExists
from blobhub_server.platform.store import alias as store
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import organization as organization_store


@asynccontextmanager
async def claim_alias(tx: Transaction, kind: str, parent_id: str, alias: str, resource_id: str) -> AsyncIterator[None]:
    """Surrounds the statement that gives `alias` to a resource. Raises AlreadyExists when another has it or had it.

    Its current holder is looked up before the statement, because two renames that swap aliases would deadlock on the unique
    index. Its former holder is looked up after the statement, which has waited in the index for a rename that is giving the
    alias up.
    """
    if await _is_taken(tx, parent_id, alias):
        raise AlreadyExists(kind, alias)
    try:
        async with tx.savepoint():
            yield
    except IntegrityError:
        raise AlreadyExists(kind, alias) from None
    holder = await store.find_former_holder(tx, parent_id, alias)
    if holder is not None and holder != resource_id:
        raise AlreadyExists(kind, alias)
    if holder is not None:
        await store.take_back(tx, parent_id, alias)


async def _is_taken(tx: Transaction, parent_id: str, alias: str) -> bool:
    if parent_id:
        return await blob_store.find(tx, parent_id, alias, by_id=True) is not None
    return await organization_store.find(tx, alias=alias) is not None


@asynccontextmanager
async def change_alias(
    tx: Transaction, kind: str, parent_id: str, old: str, new: str | None, resource_id: str
) -> AsyncIterator[None]:
    """Surrounds the statement that updates a resource; its alias changes from `old` to `new`, unless `new` is None."""
    if new is None:
        yield
        return
    async with claim_alias(tx, kind, parent_id, new, resource_id):
        yield
    await store.give_up(tx, parent_id, old, resource_id)
