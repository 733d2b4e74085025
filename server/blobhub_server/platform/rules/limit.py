"""Limits: how much an organization or a blob may hold, and who says so."""

from __future__ import annotations

from dataclasses import dataclass

from blobhub_server.errors import InvalidValue

DEFAULT = "default"
ORGANIZATION = "organization"
BLOB = "blob"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is set for a limit on an organization, and on a blob of it; None where nothing is."""

    organization: int | None = None
    blob: int | None = None

    def effective(self, default: int) -> tuple[int, str]:
        """The value that holds, and where it comes from."""
        if self.blob is not None:
            return self.blob, BLOB
        return (default, DEFAULT) if self.organization is None else (self.organization, ORGANIZATION)

    def inherited(self, default: int, *, on_blob: bool) -> int:
        """The value that would hold without the blob's, or the organization's, own one."""
        return Setting(self.organization if on_blob else None).effective(default)[0]


def require_settable(value: int, inherited: int, *, administrator: bool) -> None:
    """Raise InvalidValue when somebody who does not administer the server sets more than would hold otherwise."""
    if value > inherited and not administrator:
        raise InvalidValue("value", f"must be at most {inherited}; administrators of the server may set more")
