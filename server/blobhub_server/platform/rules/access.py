"""Who may do what: all decisions about access, as pure functions.

Every permission check of the server is in this module. `tests/test_access_matrix.py` calls every method as every kind of
caller, also against mutants of this file, so a check that is removed or inverted is noticed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from enum import IntEnum

from blobhub_server.blobtypes.access import Caller, Place, Role
from blobhub_server.errors import InvalidValue, KeyTooStrong, PermissionDenied, Unauthenticated


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
    """Check what can be checked before any resource is looked up. Raises Unauthenticated, PermissionDenied."""
    if caller.anonymous and permission is not Permission.ANYONE and not public_read:
        raise Unauthenticated
    if permission is Permission.USER and caller.role is not Role.ADMIN:  # no key of an organization or a blob has it
        raise PermissionDenied
    if permission is Permission.ADMINISTRATOR and not caller.administrator:
        raise PermissionDenied


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


def require_role(role: Role, place: Place, permission: Permission, *, public_read: bool) -> None:
    """Raise PermissionDenied unless the role suffices, or the place is public and the method allows public reading."""
    if not (public_read and place.public) and role < REQUIRED_ROLES[permission]:
        raise PermissionDenied


def require_public_creation(role: Role, *, public: bool) -> None:
    """Only an admin decides on visibility, also at creation. Raises PermissionDenied."""
    if public and role is not Role.ADMIN:
        raise PermissionDenied


def require_settings_role(role: Role, fields: Collection[str]) -> None:
    """Only an admin changes a blob's alias or visibility; who may write changes the rest. Raises PermissionDenied."""
    if not {"alias", "visibility"}.isdisjoint(fields) and role is not Role.ADMIN:
        raise PermissionDenied


def require_key_role(place: Place, role: Role) -> None:
    """Raise InvalidValue for `admin` on an organization or a blob: only a user can be that."""
    if role is Role.ADMIN and place.user_id is None:
        raise InvalidValue("role", "a key of an organization or a blob is for `read` or `write`")


def require_lifetime(caller: Caller, expire_time: datetime | None) -> None:
    """A key never outlives the key that it is made with. Raises KeyTooStrong.

    Its role needs no check: only admins make keys, and no role is stronger than theirs.
    """
    if caller.expire_time is not None and (expire_time is None or expire_time > caller.expire_time):
        raise KeyTooStrong(caller.expire_time)
