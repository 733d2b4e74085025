"""Locks on what others are in: an organization before its blobs, and both before anything that is held in them."""

from __future__ import annotations

from blobhub_server.blobtypes.contract import Located
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import PermissionDenied
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import organization as organization_store


async def lock_place(tx: Transaction, place: Located) -> None:
    """Let nobody else change what an organization, and its blob where the place is one, hold until the commit.

    Raises PermissionDenied when either is gone.
    """
    if place.org_id and await organization_store.find(tx, id_=place.org_id, lock=True) is None:
        raise PermissionDenied
    if place.blob_id and await blob_store.get(tx, place.blob_id, lock=True) is None:
        raise PermissionDenied
