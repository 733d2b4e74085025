"""Deleting blobs and organizations, with all that is in them."""

from __future__ import annotations

from blobhub_server.blobtypes.contract import Located
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.db.engine import Transaction
from blobhub_server.platform.rules.blob import Blob
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


async def delete_blob(tx: Transaction, types: BlobTypes, blob: Blob) -> None:
    """Delete a blob that the caller has locked. The bytes of its content stay: others may have the same."""
    await types.delete(tx, blob.type, blob.id)
    place = Located(blob.org_id, blob.id, False, blob)
    await api_key_store.delete_all(tx, place)
    await _held_on(tx, blob.id)
    await metadata_store.delete_all_of_blob(tx, blob.id)
    await content_store.delete_all_of_blob(tx, blob.id)
    await revision_store.delete_all(tx, blob.id)
    await blob_event_store.delete_all(tx, blob.id)
    await blob_store.delete(tx, blob.id)


async def delete_organization(tx: Transaction, types: BlobTypes, org_id: str) -> int:
    """Delete an organization that the caller has locked, and its blobs; return how many those were."""
    blob_ids = await blob_store.ids(tx, org_id)
    for blob_id in blob_ids:
        blob = await blob_store.get(tx, blob_id, lock=True)
        if blob is not None:
            await delete_blob(tx, types, blob)
    await api_key_store.delete_all(tx, Located(org_id, None, False, None))
    await _held_on(tx, org_id)
    await organization_store.delete(tx, org_id)
    return len(blob_ids)


async def _held_on(tx: Transaction, resource_id: str) -> None:
    """Delete what blobs and organizations alike hold."""
    await member_store.delete_all(tx, resource_id)
    await credential_store.delete_all(tx, resource_id)
    await alias_store.delete_all(tx, resource_id)
    await limit_store.delete_all(tx, resource_id)
