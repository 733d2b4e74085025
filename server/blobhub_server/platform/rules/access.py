"""Who may do what: all decisions about access, as pure functions.

Every permission check of the server is in this module. `tests/test_access_matrix.py` calls every method as every kind of
caller, also against mutants of this file, so a check that is removed or inverted is noticed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from enum import IntEnum

from blobhub_server.blobtypes.access import Caller, Place, Role
from blobhub_server.errors import BlobHubError, InvalidValue, KeyMissing, KeyTooStrong, NotFound, PermissionDenied


class Permission(IntEnum):
    """What a method asks for. The numbers are those of `blobhub.v1.Permission`."""

    ANYONE = 1
    CALLER = 2
    USER = 3
    READ = 4
    WRITE = 5
    ADMIN = 6
    ADMINISTRATOR = 7


REQUIRED_ROLES: Mapping[Permission, Role] = {
    Permission.READ: Role.READ,
    Permission.WRITE: Role.WRITE,
    Permission.ADMIN: Role.ADMIN,
}
"""The permissions that are about a resource, and the role that each requires."""


def require_caller(caller: Caller, permission: Permission, *, public_read: bool) -> None:
    """Check what can be checked before any resource is looked up. Raises KeyMissing, PermissionDenied."""
    if caller.anonymous and permission is not Permission.ANYONE and not public_read:
        raise KeyMissing
    if permission is Permission.USER and caller.role is not Role.ADMIN:  # no key of an organization or a blob has it
        raise PermissionDenied("this is for users: send a token, or a personal key with the role `admin`")
    if permission is Permission.ADMINISTRATOR and not caller.administrator:
        raise PermissionDenied("this is for administrators of the server")


def held_role(caller: Caller, place: Place, membership: Role) -> Role:
    """The role that a caller holds on a place, whether or not the place is public.

    A user has the role of their memberships (`membership`, the stronger of those on organization and blob), capped by the
    key, and is an admin of themselves. A scoped key has its own role within its scope. Administrators have every role.
    """
    if caller.administrator:
        return Role.ADMIN
    if caller.user_id is not None:
        own = Role.ADMIN if place.user_id == caller.user_id else membership
        return min(own, caller.role)
    if caller.organization_id == place.organization_id and caller.blob_id in (None, place.blob_id):
        return caller.role
    return Role.NONE


def works_at(caller: Caller, place: Place) -> bool:
    """Whether a place is a queue that the caller's key makes it a worker of."""
    return caller.organization_id == place.organization_id and place.queue in caller.queues


def require_role(role: Role, place: Place, permission: Permission, *, public_read: bool, name: str = "this") -> None:
    """Raise PermissionDenied unless the role suffices, or the place is public and the method allows public reading.

    The error says which role is needed on what is called `name`, so it is for callers who may see that.
    """
    if not (public_read and place.public) and role < REQUIRED_ROLES[permission]:
        needed = REQUIRED_ROLES[permission].name.lower()
        raise PermissionDenied(f"this needs the role `{needed}` on {name}", role=needed)


def is_hidden(role: Role, *, public: bool, seen_by: Role) -> bool:
    """Whether a resource is like an absent one to who holds the role on its place; `seen_by` is the weakest that sees it."""
    return role < seen_by and not public


def hidden(caller: Caller, absent: NotFound, *, parent_readable: bool) -> BlobHubError:
    """The one answer for what does not exist and for what the caller may not see.

    Only who may read the parent that the request names is told `absent`; the parent of what names none is the server.
    """
    if not parent_readable:
        return refusal_for(caller, PermissionDenied())
    return refusal_for(caller, absent)


def refusal_for(caller: Caller, error: BlobHubError) -> BlobHubError:
    """What a caller is told of a refusal: one without a key learns nothing but that no key came."""
    return KeyMissing() if caller.anonymous and isinstance(error, NotFound | PermissionDenied) else error


def require_public_creation(role: Role, *, public: bool) -> None:
    """Only an admin decides on visibility, also at creation. Raises PermissionDenied."""
    if public and role is not Role.ADMIN:
        raise PermissionDenied("to make it public needs the role `admin`", role="admin")


def require_settings_role(role: Role, fields: Collection[str]) -> None:
    """Only an admin changes a blob's alias or visibility; who may write changes the rest. Raises PermissionDenied."""
    if not {"alias", "visibility"}.isdisjoint(fields) and role is not Role.ADMIN:
        raise PermissionDenied("to change alias or visibility needs the role `admin`", role="admin")


def require_key_role(place: Place, role: Role) -> None:
    """Raise InvalidValue for `admin` on an organization or a blob: only a user can be that."""
    if role is Role.ADMIN and place.user_id is None:
        raise InvalidValue("role", "a key of an organization or a blob is for `read` or `write`")


def require_worker_queues(place: Place, queues: Collection[str], *, worker: bool) -> None:
    """Raise InvalidValue for a worker's key of what is no organization, or without queues, and for queues of another key."""
    if worker and (place.user_id is not None or place.blob_id is not None):
        raise InvalidValue("role", "a key with the role `worker` is one of an organization, whose the queues are")
    if worker and not queues:
        raise InvalidValue("queue_names", "a key with the role `worker` needs at least one queue")
    if queues and not worker:
        raise InvalidValue("queue_names", "only a key with the role `worker` is for queues")


def require_lifetime(caller: Caller, expire_time: datetime | None) -> None:
    """A key never outlives the key that it is made with. Raises KeyTooStrong.

    Its role needs no check: only admins make keys, and no role is stronger than theirs.
    """
    if caller.expire_time is not None and (expire_time is None or expire_time > caller.expire_time):
        raise KeyTooStrong(caller.expire_time)
