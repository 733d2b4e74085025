"""How much may be held: the platform's limits, and those that blob types bring."""

from __future__ import annotations

from collections.abc import Sequence

from blobhub_server.blobtypes.contract import Limit
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.clock import Clock
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import InvalidValue, LimitExceeded, PermissionDenied
from blobhub_server.platform.rules import limit as rules
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.credential import MAX_CREDENTIALS
from blobhub_server.platform.rules.metadata import MAX_RECORDS
from blobhub_server.platform.rules.organization import Organization
from blobhub_server.platform.store import api_key as api_key_store
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import credential as credential_store
from blobhub_server.platform.store import limit as store
from blobhub_server.platform.store import member as member_store
from blobhub_server.platform.store import metadata as metadata_store
from blobhub_server.platform.store import operation as operation_store
from blobhub_server.platform.store import organization as organization_store
from blobhub_server.platform.store import revision as revision_store

KEYS = "Keys of the organization and its blobs that are neither revoked nor expired"


def organization_limits(clock: Clock) -> Sequence[Limit]:
    """The limits that are counted in organizations."""

    async def keys(tx: Transaction, organization_id: str) -> int:
        return await api_key_store.count(tx, organization_id, clock())

    return (
        Limit(name="organization.api_keys", description=KEYS, default=1_000, held=keys),
        Limit(
            name="organization.blobs",
            description="Blobs of the organization",
            default=100_000,
            held=organization_store.blob_count,
        ),
        Limit(
            name="organization.members",
            description="Roles that users hold on the organization and its blobs",
            default=10_000,
            held=member_store.count,
        ),
    )


BLOB_LIMITS = (
    Limit(
        name="blob.bytes",
        description="Bytes of content, each content counted once however often it is held",
        default=10 << 30,
        held=blob_store.total_bytes,
    ),
    Limit(
        name="blob.open_operations",
        description="Operations of the blob that have not ended",
        default=100,
        held=operation_store.count_open,
    ),
    Limit(name="blob.revisions", description="Revisions of the blob", default=10_000, held=revision_store.count),
)
"""Counted in blobs of every type."""

CREDENTIALS = Limit(
    name="credentials",
    description="Credentials of the organization or the blob itself",
    default=MAX_CREDENTIALS,
    held=credential_store.count,
)
RECORDS = Limit(
    name="metadata.records_per_parent",
    description="Records of metadata on the blob itself; a revision may have as many",
    default=MAX_RECORDS,
    held=metadata_store.count,
)


class Limits:
    """Implements `blobtypes.contract.Limits`."""

    def __init__(self, types: BlobTypes, clock: Clock) -> None:
        self._types = types
        self._organization_limits = organization_limits(clock)
        self.of_platform = (*self._organization_limits, *BLOB_LIMITS)

    def counted_in(self, parent: Organization | Blob) -> Sequence[Limit]:
        """The limits on what an organization itself, or a blob, holds."""
        if isinstance(parent, Blob):
            return (*BLOB_LIMITS, *self._types.limits(parent.type))
        return (*self._organization_limits, *self._types.organization_limits())

    def settable_on(self, parent: Organization | Blob) -> Sequence[Limit]:
        """The limits that hold for an organization and its blobs, or for a blob, by name."""
        of_all_blobs = () if isinstance(parent, Blob) else (*BLOB_LIMITS, *self._types.limits())
        return sorted((*self.counted_in(parent), *of_all_blobs), key=lambda limit: limit.name)

    def fixed_on(self, parent: Organization | Blob) -> Sequence[Limit]:
        """The limits of an organization or a blob that nobody sets."""
        return (CREDENTIALS, RECORDS) if isinstance(parent, Blob) else (CREDENTIALS,)

    def find(self, parent: Organization | Blob, name: str) -> Limit:
        """One of those by its name. Raises InvalidValue."""
        for limit in self.settable_on(parent):
            if limit.name == name:
                return limit
        if name in (limit.name for limit in self.fixed_on(parent)):
            raise InvalidValue("name", "this limit is fixed")
        kind = "a blob of this type" if isinstance(parent, Blob) else "an organization"
        names = ", ".join(limit.name for limit in self.settable_on(parent))
        raise InvalidValue("name", f"no such limit on {kind}; there is {names}")

    async def value(self, tx: Transaction, name: str, *, organization_id: str, blob_id: str) -> int:
        limits = (*self.of_platform, *self._types.limits(), *self._types.organization_limits())
        default = {limit.name: limit.default for limit in limits}[name]
        return rules.effective(await store.get(tx, name, organization_id, blob_id), default).value

    async def lock(self, tx: Transaction, *, organization_id: str, blob_id: str) -> None:
        if blob_id:
            found: object = await blob_store.get(tx, blob_id, lock=True)
        else:
            found = await organization_store.find(tx, id_=organization_id, lock=True)
        if found is None:
            raise PermissionDenied

    async def require(self, tx: Transaction, name: str, *, organization_id: str, blob_id: str, held: int) -> None:
        value = await self.value(tx, name, organization_id=organization_id, blob_id=blob_id)
        if held > value:
            raise LimitExceeded(name, value, blob_id or organization_id)
