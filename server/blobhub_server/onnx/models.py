"""The model of a revision: three entries of its content, which are written and removed together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.blobtypes.etag import ANY, require_etag
from blobhub_server.blobtypes.values import Entry
from blobhub_server.cache import Cache
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import AlreadyExists, ContentLost, NotFound, WrongPhase
from blobhub_server.onnx.processing.report import Signature
from blobhub_server.turnstile import Party, off_loop

MODEL = "model.onnx"
"""The entry with the model's bytes."""
DOCUMENT = "model.json"
"""The entry with the graph without weights, as JSON."""
SIGNATURE = "signature.json"
"""The entry with what else is known of the model. It is for this server, and no artifact."""
ENTRIES = (MODEL, DOCUMENT, SIGNATURE)
ARTIFACTS = (MODEL, DOCUMENT)
"""What can be downloaded."""

INSTEAD = "PutModel or UploadModel stores one in a draft"


@dataclass(frozen=True, slots=True)
class Model:
    """The model of a revision: its entries by name, and what is known of it."""

    entries: Mapping[str, Entry]
    signature: Signature


class Models:
    """Finds, writes and removes the models of revisions."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._signatures: Cache[Signature] = Cache(max_count=1024, max_bytes=32 << 20)

    async def find(self, revision_id: str, reference: str, party: Party) -> Model:
        """The model of a revision, which a caller has named by a reference. Raises NotFound, ContentLost."""
        entries = await self.find_entries(revision_id, reference)
        signature = await self.read_signature(entries[SIGNATURE], party)
        return Model(entries=entries, signature=signature)

    async def find_entries(self, revision_id: str, reference: str) -> Mapping[str, Entry]:
        """The entries of a revision's model, by name. Raises NotFound when there is none."""
        async with self._host.db.read() as tx:
            entries = await self._host.contents.find_some(tx, revision_id, ENTRIES)
        if len(entries) < len(ENTRIES):
            raise NotFound("model", reference, INSTEAD)
        return entries

    async def read_signature(self, entry: Entry, party: Party) -> Signature:
        """What is known of a model, by its entry `signature.json`. Raises ContentLost."""
        return await self._signatures.obtain(entry.digest, partial(self._read_signature, entry, party))

    async def _read_signature(self, entry: Entry, party: Party) -> tuple[Signature, int]:
        stored = await self._host.contents.read(entry.digest)
        try:
            return await off_loop(len(stored), party, partial(Signature.decode, stored)), len(stored)
        except (ValueError, KeyError, TypeError):
            raise ContentLost(entry.digest) from None

    async def require_writable(
        self, tx: Transaction, revision: RevisionView, reference: str, *, etag: str, create_only: bool
    ) -> None:
        """Refuse a model that `write` would refuse as things are now, before work is spent on it.

        Raises WrongPhase, StaleEtag; AlreadyExists for `create_only`, and NotFound for the etag `*`.
        """
        require_draft(revision)
        require_etag(etag, revision.etag)
        current = await self._host.contents.find(tx, revision.id, MODEL)
        if create_only and current is not None:
            raise AlreadyExists("model", reference)
        if etag == ANY and current is None:
            raise NotFound("model", reference, INSTEAD)

    async def write(
        self,
        tx: Transaction,
        revision_id: str,
        stored: Mapping[str, tuple[str, int]],
        *,
        etag: str,
        create_only: bool,
    ) -> tuple[Mapping[str, Entry], str]:
        """Make what is stored, digest and size by entry, the model of a draft; return its entries and the draft's new etag.

        Raises WrongPhase, StaleEtag, LimitExceeded; AlreadyExists for `create_only`, and NotFound for the etag `*`.
        """
        entries = {}
        for name in ENTRIES:
            try:
                entries[name], etag = await self._host.contents.put(
                    tx, revision_id, name, stored[name], limit=None, etag=etag, create_only=create_only
                )
            except AlreadyExists:
                raise AlreadyExists("model", revision_id) from None
            except NotFound as error:
                raise (NotFound("model", revision_id, INSTEAD) if error.kind == "entry" else error) from None
        return entries, etag

    async def delete(self, tx: Transaction, revision_id: str, reference: str, *, etag: str) -> str:
        """Remove the model of a draft; return the draft's new etag. Raises NotFound, WrongPhase, StaleEtag."""
        for name in ENTRIES:
            try:
                etag = await self._host.contents.delete(tx, revision_id, name, etag=etag)
            except NotFound as error:
                raise (NotFound("model", reference, INSTEAD) if error.kind == "entry" else error) from None
        return etag


def require_draft(revision: RevisionView) -> None:
    """Raise WrongPhase unless a revision is a draft."""
    if revision.phase != "draft":
        raise WrongPhase(revision.phase, "draft")
