"""Who may do what: the decision, without looking anything up."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Role(IntEnum):
    """Roles, weakest first. The numbers are those of `blobhub.v1.Role`."""

    NONE = 0
    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call.

    A personal key acts as its user: `user_id` is set and roles come from memberships. A scoped key carries its own
    `role` on `org_id`, or on the one blob `blob_id` of it.
    """

    key_id: str | None = None
    user_id: str | None = None
    org_id: str | None = None
    blob_id: str | None = None
    role: Role = Role.NONE
    administrator: bool = False

    @property
    def anonymous(self) -> bool:
        """True when no key came with the call."""
        return self.key_id is None

    @property
    def identity(self) -> str:
        """Under what a caller's request ids are remembered: the user, or the scoped key."""
        return self.user_id or self.key_id or ""


ANONYMOUS = Caller()


def effective(caller: Caller, *, org_id: str, blob_id: str | None, membership: Role, public_read: bool) -> Role:
    """A caller's role on a blob, or on an organization when `blob_id` is None.

    The strongest of: what the caller's memberships give (`membership`, for users), what the key gives within its scope,
    and `read` when the resource is public and the method is content with that. Administrators have every role.
    """
    if caller.administrator:
        return Role.ADMIN
    held = Role.READ if public_read else Role.NONE
    if caller.user_id is not None:
        return max(held, membership)
    if caller.org_id == org_id and (caller.blob_id is None or caller.blob_id == blob_id):
        return max(held, caller.role)
    return held
