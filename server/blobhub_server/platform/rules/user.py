"""Users: people, and programs that hold roles of their own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from blobhub_server.errors import LastAdmin


@dataclass(frozen=True, slots=True)
class User:
    """A user. `issuer` and `subject` are None for users whom an administrator created."""

    id: str
    name: str
    display_name: str
    administrator: bool
    disabled: bool
    issuer: str | None
    subject: str | None
    create_time: datetime
    update_time: datetime
    etag: str


def new_user(
    *,
    id: str,
    name: str,
    now: datetime,
    etag: str,
    display_name: str = "",
    administrator: bool = False,
    issuer: str | None = None,
    subject: str | None = None,
) -> User:
    """The record of a user who is made now."""
    return User(
        id=id,
        name=name,
        display_name=display_name,
        administrator=administrator,
        disabled=False,
        issuer=issuer,
        subject=subject,
        create_time=now,
        update_time=now,
        etag=etag,
    )


def require_administrator_left(user_id: str, administrators: Collection[User], *, remains: bool) -> None:
    """Raise LastAdmin when `user_id` is the last administrator who is not disabled, and does not remain one."""
    if not remains and {user.id for user in administrators} == {user_id}:
        raise LastAdmin("server")
