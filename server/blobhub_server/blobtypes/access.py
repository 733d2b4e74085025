"""The values that access is decided on: caller, role, place, and what a reference leads to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Generic, TypeVar

from blobhub_server.errors import BlobHubError
from blobhub_server.turnstile import Party

Resource_co = TypeVar("Resource_co", covariant=True)


class Role(IntEnum):
    """Roles, weakest first. The numbers are those of `blobhub.v1.Role`."""

    NONE = 0
    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call.

    With a token or a personal key the caller acts as a user: `user_id` is set, roles come from memberships, and `role` caps
    them. A scoped key has its own `role` on `organization_id`, or only on its blob `blob_id`. `administrator` is true for a
    user who administers the server, unless the key caps the role. `expire_time` is when the key or token stops working.
    `queues` are those of the organization that a worker's key is for; it has no role.
    """

    key_id: str | None = None
    user_id: str | None = None
    organization_id: str | None = None
    blob_id: str | None = None
    role: Role = Role.NONE
    administrator: bool = False
    expire_time: datetime | None = None
    user_name: str = ""
    queues: frozenset[str] = frozenset()

    @property
    def anonymous(self) -> bool:
        """True when neither key nor token came with the call."""
        return not self.identity

    @property
    def actor_id(self) -> str:
        """The actor of what is done later on the caller's behalf: the key, or the user of a token; empty if anonymous."""
        return self.key_id or self.user_id or ""

    @property
    def party(self) -> Party:
        """Whose turn it is where calls wait for each other: a scoped key's organization, or the user; and the caller."""
        return self.organization_id or self.user_id or "", self.identity

    @property
    def identity(self) -> str:
        """The id that request ids are remembered under: the user, or the scoped key."""
        return self.user_id or self.key_id or ""


ANONYMOUS = Caller()


@dataclass(frozen=True, slots=True)
class Place:
    """Where roles are held: on an organization, on a blob of it, or by the user `user_id` on themselves.

    `organization_id` is empty for what belongs to a user, or to the administrators of the server. `queue` is set where it is
    a queue of the organization, which workers are confined to.
    """

    organization_id: str = ""
    blob_id: str | None = None
    user_id: str | None = None
    public: bool = False
    queue: str = ""


NOWHERE = Place()
"""The place of what concerns the whole server, or no resource."""


@dataclass(frozen=True, slots=True)
class Resolution(Generic[Resource_co]):
    """What a reference leads to: a resource, and the place that roles on it are held on.

    When the place exists and the resource does not, `resource` is the error to raise for callers who may see the place.

    `seen_by` is the weakest role that sees the resource; to weaker ones it is like one that does not exist. `never_public`
    says that the resource is not shown to everybody, even where its place is public.
    """

    place: Place
    resource: Resource_co | BlobHubError
    seen_by: Role = Role.READ
    never_public: bool = False


Locator = Callable[[str, Caller], Awaitable[Resolution[object] | None]]
"""Resolves the text of a request field for a caller; None when there is no such place."""
