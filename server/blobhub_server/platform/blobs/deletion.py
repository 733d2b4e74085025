"""Deletes blobs and organizations with all that is in them, with one statement for each table.

Blobs are locked in the order of their ids, and before anything in them, as in every other change.
"""

from __future__ import annotations

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


async def delete_blob(tx: Transaction, types: BlobTypes, blob_id: str) -> None:
    """Delete a blob that the caller has locked. The bytes of its content stay: others may have the same."""
    await _delete_blobs(tx, types, blob_store.select_one(blob_id))


async def delete_organization(tx: Transaction, types: BlobTypes, organization_id: str) -> None:
    """Delete an organization that the caller has locked, and its blobs."""
    blob_ids, itself = blob_store.select_in_organization(organization_id), organization_store.select_one(organization_id)
    await blob_store.lock_all(tx, blob_ids)
    await api_key_store.delete_all_of_organization(tx, organization_id)
    await _delete_blobs(tx, types, blob_ids)
    await _delete_shared(tx, itself)
    await organization_store.delete(tx, organization_id)


async def _delete_blobs(tx: Transaction, types: BlobTypes, blob_ids: IdQuery) -> None:
    """Delete blobs that are locked."""
    for type_ in await blob_store.types(tx, blob_ids):
        await types.delete(tx, type_, blob_store.select_of_type(blob_ids, type_))
    await _delete_shared(tx, blob_ids)
    for store in (api_key_store, metadata_store, content_store, revision_store, blob_event_store):
        await store.delete_all_of_blobs(tx, blob_ids)
    await blob_store.delete_all(tx, blob_ids)


async def _delete_shared(tx: Transaction, resource_ids: IdQuery) -> None:
    """Delete what both blobs and organizations hold."""
    for store in (member_store, credential_store, alias_store, limit_store):
        await store.delete_all(tx, resource_ids)
