"""The secrets that components use outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Secrets(Protocol):
    """Credentials of blobs. Components must not put them in outputs, errors or logs."""

    async def use(self, *, organization_id: str, blob_id: str, actor_id: str, alias: str) -> Mapping[str, Any]:
        """The body of the credential that an alias names for a blob: the blob's own, else its organization's.

        The actor needs the role `write` on the blob at this moment. Where the storage is away, this waits for it. Raises
        PermissionDenied, NotFound, CredentialUnreadable, MasterKeyMissing.
        """
