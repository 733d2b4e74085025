"""Where callers hold roles, and what that is called."""

from __future__ import annotations

import sqlalchemy as sa

from blobhub_server.blobtypes.access import Place, Role
from blobhub_server.db.engine import Transaction
from blobhub_server.platform.store.blob import blobs
from blobhub_server.platform.store.member import members
from blobhub_server.platform.store.organization import organizations

_on_organization = members.alias()

_HELD = (
    sa.select(
        members.c.org_id,
        members.c.blob_id,
        members.c.role,
        _on_organization.c.role,
        organizations.c.alias,
        blobs.c.alias,
    )
    .join(organizations, organizations.c.id == members.c.org_id)
    .outerjoin(blobs, blobs.c.id == members.c.blob_id)
    .outerjoin(
        _on_organization,
        sa.and_(
            _on_organization.c.user_id == members.c.user_id,
            _on_organization.c.resource_id == members.c.org_id,
        ),
    )
    .where(members.c.user_id == sa.bindparam("user"))
    .order_by(members.c.resource_id)
)


async def held(tx: Transaction, user_id: str, limit: int) -> list[tuple[Place, str, Role]]:
    """Where a user holds a role, oldest organizations and blobs first: the place, its reference, and the stronger of the
    roles on it and on its organization.
    """
    rows = await tx.execute(_HELD.limit(limit), {"user": user_id})
    return [
        (Place(org_id, blob_id), _reference(organization, blob), Role(max(role, on_organization or 0)))
        for org_id, blob_id, role, on_organization, organization, blob in rows
    ]


async def reference(tx: Transaction, place: Place) -> str:
    """What an organization or a blob is called: `acme`, `acme/pipeline`. Empty when it is gone."""
    query = (
        sa.select(organizations.c.alias, blobs.c.alias)
        .outerjoin(blobs, blobs.c.id == place.blob_id)
        .where(organizations.c.id == place.org_id)
    )
    row = (await tx.execute(query)).first()
    return _reference(*row) if row else ""


def _reference(organization: str, blob: str | None) -> str:
    return f"{organization}/{blob}" if blob else organization
