"""Limits: how much an organization or a blob may hold, and who may set that.

A setting binds lower ranks: one by an administrator of the server binds the admins of organizations, and one by these binds
the admins of their blobs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from blobhub_server.blobtypes.access import Role
from blobhub_server.errors import InvalidValue

DEFAULT = "default"
ORGANIZATION = "organization"
BLOB = "blob"


class Rank(IntEnum):
    """Who sets a limit, lowest first."""

    BLOB = 0
    """An admin of the blob, and of no more."""
    ORGANIZATION = 1
    """An admin of the organization."""
    SERVER = 2
    """An administrator of the server."""


@dataclass(frozen=True, slots=True)
class LimitSetting:
    """A value that somebody of a rank has set. `source` says whether it is set on the organization or on the blob."""

    source: str
    rank: Rank
    value: int


def rank(*, administrator: bool, on_organization: Role) -> Rank:
    """The rank of an admin of a blob or an organization, by the role they hold on the organization."""
    if administrator:
        return Rank.SERVER
    return Rank.ORGANIZATION if on_organization is Role.ADMIN else Rank.BLOB


def effective(settings: Iterable[LimitSetting], default: int) -> LimitSetting:
    """The setting that applies, of all that are set for an organization, or for a blob and its organization.

    Settings are taken in order: the default, which has the server's rank, then those of the organization, then those of the
    blob; higher ranks first. Each replaces earlier ones of the same or a lower rank. Of the rest the lowest value applies,
    so a setting can only lower what a higher rank has set.
    """
    holding = [LimitSetting(source=DEFAULT, rank=Rank.SERVER, value=default)]
    for setting in sorted(settings, key=lambda setting: (setting.source == BLOB, -setting.rank)):
        holding = [before for before in holding if before.rank > setting.rank] + [setting]
    return min(reversed(holding), key=lambda setting: setting.value)


def etag(settings: Iterable[LimitSetting]) -> str:
    """The etag of a limit: a digest of what is set, so that a limit has one where no row is."""
    said = sorted((setting.source, int(setting.rank), setting.value) for setting in settings)
    return hashlib.sha256(repr(said).encode()).hexdigest()[:32]


def remaining_settings(settings: Iterable[LimitSetting], source: str, by: Rank) -> list[LimitSetting]:
    """The settings that remain when a rank sets or clears a value at `source`: all but its own and those of lower ranks."""
    return [setting for setting in settings if setting.source != source or setting.rank > by]


def require_settable(setting: LimitSetting, settings: Iterable[LimitSetting], default: int) -> None:
    """Raise InvalidValue when the value is above what applies without it. Administrators of the server may set any value."""
    most = effective(remaining_settings(settings, setting.source, setting.rank), default).value
    if setting.value > most and setting.rank is not Rank.SERVER:
        raise InvalidValue("value", f"must be at most {most}; administrators of the server may set more")
