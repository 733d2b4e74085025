"""Locks on places. The order is: an organization, its blobs, and then what is in them; a user before what is theirs."""

from __future__ import annotations

from blobhub_server.blobtypes.access import Place
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import PermissionDenied
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import organization as organization_store
from blobhub_server.platform.store import user as user_store


async def lock_place(tx: Transaction, place: Place) -> None:
    """Lock a place until the commit: its organization and its blob, or its user.

    Raises PermissionDenied when any of them is gone.
    """
    if place.organization_id and await organization_store.find(tx, id_=place.organization_id, lock=True) is None:
        raise PermissionDenied
    if place.blob_id and await blob_store.get(tx, place.blob_id, lock=True) is None:
        raise PermissionDenied
    if place.user_id:
        await lock_user(tx, place.user_id)


async def lock_user(tx: Transaction, user_id: str) -> None:
    """Lock a user until the commit. Raises PermissionDenied when the user is gone."""
    if await user_store.get(tx, user_id, lock=True) is None:
        raise PermissionDenied
