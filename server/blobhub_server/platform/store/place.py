"""Places that may have been deleted."""

from __future__ import annotations

import sqlalchemy as sa

from blobhub_server.blobtypes.access import Place
from blobhub_server.db.engine import Transaction
from blobhub_server.db.prepared import Prepared
from blobhub_server.db.presence import place_is_there
from blobhub_server.db.records import Scalar

_ORGANIZATION, _BLOB = (sa.bindparam(name, type_=sa.String) for name in ("organization", "blob"))
_IS_THERE = Prepared(sa.select(place_is_there(_ORGANIZATION, _BLOB).label("is_there")), Scalar(bool))


async def is_there(tx: Transaction, place: Place) -> bool:
    """Whether a place is there."""
    return await tx.one(_IS_THERE, organization=place.organization_id or None, blob=place.blob_id)
