"""Deletes blobs and organizations with all that is in them, part by part in one transaction.

Blobs are locked in the order of their ids, and before anything in them, as in every other change.
"""

from __future__ import annotations

from collections.abc import Sequence

from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.db.engine import Transaction
from blobhub_server.db.schema import IdQuery
from blobhub_server.platform.store import alias as alias_store
from blobhub_server.platform.store import api_key as api_key_store
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import blob_event as blob_event_store
from blobhub_server.platform.store import content as content_store
from blobhub_server.platform.store import credential as credential_store
from blobhub_server.platform.store import limit as limit_store
from blobhub_server.platform.store import member as member_store
from blobhub_server.platform.store import metadata as metadata_store
from blobhub_server.platform.store import organization as organization_store
from blobhub_server.platform.store import revision as revision_store

BLOBS_AT_ONCE = 100
"""How many blobs a statement looks at: some hold nothing of what it removes, and it passes over them."""


async def delete_blob(tx: Transaction, types: BlobTypes, blob_id: str) -> None:
    """Delete a blob that the caller has locked. The bytes of its content stay: others may have the same."""
    await _delete_blobs(tx, types, blob_store.select_one(blob_id), [blob_id])


async def delete_organization(tx: Transaction, types: BlobTypes, organization_id: str) -> None:
    """Delete an organization that the caller has locked, and its blobs."""
    all_blobs = blob_store.select_in_organization(organization_id)
    blob_ids = await blob_store.lock_all(tx, all_blobs)
    await api_key_store.delete_all_of_organization(tx, organization_id)
    await _delete_blobs(tx, types, all_blobs, blob_ids)
    await _delete_shared(tx, [organization_id])
    await organization_store.delete(tx, organization_id)


async def _delete_blobs(tx: Transaction, types: BlobTypes, all_blobs: IdQuery, blob_ids: Sequence[str]) -> None:
    """Delete blobs that are locked, given as a query and by their ids."""
    for type_ in await blob_store.types(tx, all_blobs):
        await types.delete(tx, type_, blob_store.select_of_type(all_blobs, type_))
    for start in range(0, len(blob_ids), BLOBS_AT_ONCE):
        part = blob_ids[start : start + BLOBS_AT_ONCE]
        await _delete_shared(tx, part)
        for store in (api_key_store, metadata_store, content_store, revision_store, blob_event_store):
            await store.delete_all_of_blobs(tx, part)
        await blob_store.delete_all(tx, part)


async def _delete_shared(tx: Transaction, resource_ids: Sequence[str]) -> None:
    """Delete what both blobs and organizations hold."""
    for store in (member_store, credential_store, alias_store, limit_store):
        await store.delete_all(tx, resource_ids)
