"""Members: users with a role on an organization or on one blob."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from blobhub_server.blobtypes.access import Role
from blobhub_server.errors import LastAdmin


@dataclass(frozen=True, slots=True)
class Member:
    """A user's role on an organization, or on the one blob `blob_id` of it."""

    user_id: str
    user_name: str
    organization_id: str
    blob_id: str | None
    role: Role
    create_time: datetime
    update_time: datetime
    etag: str


def require_admin_left(member: Member, admins: Collection[str], *, remains: bool) -> None:
    """Raise LastAdmin when `member` is the organization's last admin who is not disabled, and does not remain one.

    `admins` are the user ids of the admins who are not disabled. A blob needs no admin of its own, because the
    organization's admins are also the blob's.
    """
    if member.blob_id is None and not remains and set(admins) == {member.user_id}:
        raise LastAdmin("organization")
