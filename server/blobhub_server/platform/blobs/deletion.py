"""Deletes blobs and organizations: marks them in the call, which is short whatever is in them.

To mark one is to remove its row and to store a deletion. From that commit on it is not there (`db/presence.py`), and neither
is anything that belongs to it. The caller rings for `DELETIONS`, and `collection.py` removes the rest.
"""

from __future__ import annotations

from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.db.engine import Transaction
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import deletion as store
from blobhub_server.platform.store import organization as organization_store
from blobhub_server.platform.store.deletion import Deletion


async def mark_blob(tx: Transaction, blob: Blob) -> None:
    """Mark a blob that the caller has locked. The bytes of its content stay: others may have the same."""
    await store.insert(tx, [Deletion(id=blob.id, type=blob.type)])
    await blob_store.delete(tx, [blob.id])


async def mark_organization(tx: Transaction, types: BlobTypes, organization_id: str) -> None:
    """Mark an organization that the caller has locked, and with it its blobs. Raises BlobTypeNotInstalled."""
    for type_ in await blob_store.types(tx, organization_id):
        await types.require_installed(tx, type_)
    await store.insert(tx, [Deletion(id=organization_id, type="")])
    await organization_store.delete(tx, organization_id)
