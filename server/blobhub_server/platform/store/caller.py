"""The places where callers hold roles, and the references of these places."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from blobhub_server.blobtypes.access import Place, Role
from blobhub_server.db.engine import Transaction
from blobhub_server.db.prepared import Prepared
from blobhub_server.db.presence import place_is_there
from blobhub_server.db.records import Mapper, Pair, Scalar
from blobhub_server.platform.store.blob import blobs
from blobhub_server.platform.store.member import members
from blobhub_server.platform.store.organization import organizations

_on_organization = members.alias()


@dataclass(frozen=True, slots=True)
class _Membership:
    """A role that a user holds on a place, the role on its organization, and the aliases of both."""

    organization_id: str
    blob_id: str | None
    role: Role
    on_organization: Role | None
    organization: str
    blob: str | None


_MEMBERSHIP = Mapper(
    _Membership,
    members,
    looked_up={
        "on_organization": _on_organization.c.role,
        "organization": organizations.c.alias,
        "blob": blobs.c.alias,
    },
)
_MEMBERSHIPS = Prepared(
    _MEMBERSHIP.select()
    .join(organizations, organizations.c.id == members.c.organization_id)
    .outerjoin(blobs, blobs.c.id == members.c.blob_id)
    .outerjoin(
        _on_organization,
        sa.and_(
            _on_organization.c.user_id == members.c.user_id,
            _on_organization.c.resource_id == members.c.organization_id,
        ),
    )
    .where(members.c.user_id == sa.bindparam("user"), place_is_there(members.c.organization_id, members.c.blob_id))
    .order_by(members.c.resource_id)
    .limit(sa.bindparam("most", type_=sa.BigInteger)),
    _MEMBERSHIP,
)


async def memberships(tx: Transaction, user_id: str, limit: int) -> list[tuple[Place, str, Role]]:
    """Where a user holds a role, oldest organizations and blobs first: the place, its reference, and the stronger of the
    roles on it and on its organization.
    """
    return [
        (
            Place(organization_id=row.organization_id, blob_id=row.blob_id),
            _reference(row.organization, row.blob),
            max(row.role, row.on_organization or Role.NONE),
        )
        for row in await tx.all(_MEMBERSHIPS, user=user_id, most=limit)
    ]


_ALIASES = Prepared(
    sa.select(organizations.c.alias.label("organization"), blobs.c.alias.label("blob"))
    .outerjoin(blobs, blobs.c.id == sa.bindparam("wanted"))
    .where(organizations.c.id == sa.bindparam("org")),
    Pair(Scalar(str, "organization"), Scalar(str, "blob")),
)


async def reference(tx: Transaction, place: Place) -> str:
    """What an organization or a blob is called: `acme`, `acme/pipeline`. Empty when it is gone."""
    found = await tx.first(_ALIASES, org=place.organization_id, wanted=place.blob_id)
    return _reference(*found) if found else ""


def _reference(organization: str, blob: str | None) -> str:
    return f"{organization}/{blob}" if blob else organization
