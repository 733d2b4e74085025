"""Lists of blobs over all organizations: what a caller may read."""

from __future__ import annotations

from collections.abc import Sequence

from blobhub_server.blobtypes.access import Caller
from blobhub_server.blobtypes.listing import ListedBlob
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.ids import NOTHING
from blobhub_server.platform.admission.drafts import shown_to
from blobhub_server.platform.rules import reference as grammar
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import organization as organization_store
from blobhub_server.platform.store import revision as revision_store


class VisibleBlobs:
    """Implements `blobtypes.listing.Blobs`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def visible_to(
        self, caller: Caller, type_: str, *, organization: str, after: str, limit: int
    ) -> Sequence[ListedBlob]:
        """See the protocol."""
        named = grammar.parse("organization", "organization", organization) if organization else None
        async with self._db.scan(caller.party) as tx:
            # One that does not exist is searched as well, so that it takes as long as one of which nothing is shown.
            organization_id = await _organization_id(tx, named) if named else ""
            found = await blob_store.visible_page(
                tx, caller, type_, organization_id=organization_id, after=after, limit=limit
            )
            return await _listed(tx, await shown_to(tx, caller, found))


async def _organization_id(tx: Transaction, named: grammar.Reference) -> str:
    found = await organization_store.find(tx, id_=named.id, alias=named.organization)
    return found.id if found else NOTHING


async def _listed(tx: Transaction, blobs: Sequence[Blob]) -> list[ListedBlob]:
    aliases = await organization_store.aliases(tx, sorted({blob.organization_id for blob in blobs}))
    revisions = await revision_store.get_some(tx, [blob.default_revision_id for blob in blobs if blob.default_revision_id])
    made = []
    for blob in blobs:
        alias, default = aliases.get(blob.organization_id), revisions.get(blob.default_revision_id)
        listed = ListedBlob(
            key=blob_store.VISIBLE_ORDER.key(blob),
            # Without an alias the organization has been deleted a moment ago.
            reference=f"{alias}/{blob.alias}" if alias else blob.id,
            entries=default.entries if default else None,
            number=default.number if default else None,
        )
        made.append(listed)
    return made
