"""Limits: how much an organization or a blob may hold, and who says so.

What somebody sets binds those below them: an administrator of the server the admins of an organization, and these the admins
of one of its blobs.
"""

from __future__ import annotations

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
    """A value that somebody of a rank has set, on an organization or on a blob of it, which `source` says."""

    source: str
    rank: Rank
    value: int


def rank(*, administrator: bool, on_organization: Role) -> Rank:
    """The rank of an admin of a blob or an organization, by the role they hold on the organization."""
    if administrator:
        return Rank.SERVER
    return Rank.ORGANIZATION if on_organization is Role.ADMIN else Rank.BLOB


def effective(settings: Iterable[LimitSetting], default: int) -> LimitSetting:
    """What holds of all that is set for an organization, or for a blob and its organization.

    A setting replaces those before it of the same and of lower ranks, and can but lower what higher ranks have set. The
    default is before all others and the server's; an organization's settings are before its blob's, higher ranks' before
    lower ones'.
    """
    holding = [LimitSetting(DEFAULT, Rank.SERVER, default)]
    for setting in sorted(settings, key=lambda setting: (setting.source == BLOB, -setting.rank)):
        holding = [before for before in holding if before.rank > setting.rank] + [setting]
    return min(reversed(holding), key=lambda setting: setting.value)


def remaining_settings(settings: Iterable[LimitSetting], source: str, by: Rank) -> list[LimitSetting]:
    """What stays when somebody of a rank sets something there, or takes it back: all but what they and lower ranks set."""
    return [setting for setting in settings if setting.source != source or setting.rank > by]


def require_settable(setting: LimitSetting, settings: Iterable[LimitSetting], default: int) -> None:
    """Raise InvalidValue when somebody who does not administer the server sets more than would hold otherwise."""
    most = effective(remaining_settings(settings, setting.source, setting.rank), default).value
    if setting.value > most and setting.rank is not Rank.SERVER:
        raise InvalidValue("value", f"must be at most {most}; administrators of the server may set more")
