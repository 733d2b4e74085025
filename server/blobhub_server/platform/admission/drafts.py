"""Drafts and the public: who reads a public blob without a role never sees one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from blobhub_server.blobtypes.access import Caller, Place, Role
from blobhub_server.db.engine import Transaction
from blobhub_server.platform.admission.roles import held_role
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.store import revision as revision_store


async def shown_to(tx: Transaction, caller: Caller, blobs: Sequence[Blob]) -> list[Blob]:
    """Blobs as a caller sees them.

    To who holds no role on a blob its default revision is the latest commit or snapshot while it is a draft; where there is
    none, `default_revision_id` is empty.
    """
    drafts = set(await revision_store.drafts_among(tx, [blob.default_revision_id for blob in blobs]))
    return [await _without_draft(tx, caller, blob) if blob.default_revision_id in drafts else blob for blob in blobs]


async def _without_draft(tx: Transaction, caller: Caller, blob: Blob) -> Blob:
    if await held_role(tx, caller, Place(organization_id=blob.organization_id, blob_id=blob.id)) is not Role.NONE:
        return blob
    latest = await revision_store.get_latest(tx, blob.id)
    return replace(blob, default_revision_id=latest.id if latest else "")
