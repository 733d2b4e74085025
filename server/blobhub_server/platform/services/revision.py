"""RevisionService on the wire."""

from __future__ import annotations

from typing import Any

from blobhub.v1 import revision_pb2 as pb
from blobhub.v1 import revision_pb2_grpc as rpc

from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import InvalidContent, InvalidReference, NotFound, StaleEtag
from blobhub_server.platform.calls import BlobRevision, located
from blobhub_server.platform.contents import Contents, RevisionContent
from blobhub_server.platform.locators import version_of
from blobhub_server.platform.rules import reference as grammar
from blobhub_server.platform.rules import revision as rules
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.content import manifest_digest
from blobhub_server.platform.rules.revision import COMMIT, DRAFT, SNAPSHOT, Revision
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import content as content_store
from blobhub_server.platform.store import revision as store
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.wire import to_timestamp

_PHASES = {
    DRAFT: pb.REVISION_PHASE_DRAFT,
    COMMIT: pb.REVISION_PHASE_COMMIT,
    SNAPSHOT: pb.REVISION_PHASE_SNAPSHOT,
}


def to_proto(revision: Revision) -> pb.Revision:
    """A revision as its message."""
    return pb.Revision(
        id=revision.id,
        blob_id=revision.blob_id,
        phase=_PHASES[revision.phase],
        parent_id=revision.parent_id or "",
        comment=revision.comment,
        number=revision.number or 0,
        label=revision.label,
        digest=revision.digest,
        create_time=to_timestamp(revision.create_time),
        update_time=to_timestamp(revision.update_time),
        etag=revision.etag,
    )


class RevisionService(rpc.RevisionServiceServicer):
    """Takes a blob's content through its life."""

    def __init__(self, host: Host, contents: Contents, types: BlobTypes) -> None:
        self._host = host
        self._contents = contents
        self._types = types

    async def CreateRevision(self, request: pb.CreateRevisionRequest, context: Any) -> pb.CreateRevisionResponse:
        """See revision.proto."""
        blob: Blob = located().resource
        version = request.parent or grammar.DEFAULT
        if not grammar.is_version(version):
            raise InvalidReference("parent", "`default`, a snapshot number, or a revision's id")

        async def make(tx: Transaction) -> pb.CreateRevisionResponse:
            current = await blob_store.get(tx, blob.id, lock=True) or blob
            parent = await version_of(tx, current, version, "parent")
            if parent is None:
                raise NotFound("revision", version)
            rules.require_phase(parent, COMMIT, SNAPSHOT)
            now, ids = self._host.clock(), self._host.ids
            draft = Revision(ids(), blob.id, DRAFT, parent.id, request.comment, None, "", "", now, now, ids())
            await store.insert(tx, draft)
            await content_store.copy(tx, parent.id, draft.id, ids, now)
            return pb.CreateRevisionResponse(revision=to_proto(draft))

        return await self._host.calls.once(request, pb.CreateRevisionResponse, make)

    async def GetRevision(self, request: pb.GetRevisionRequest, context: Any) -> pb.GetRevisionResponse:
        """See revision.proto."""
        return pb.GetRevisionResponse(revision=to_proto(located().resource.revision))

    async def ListRevisions(self, request: pb.ListRevisionsRequest, context: Any) -> pb.ListRevisionsResponse:
        """See revision.proto."""
        blob: Blob = located().resource
        page = Page.parse(request, blob.id)
        async with self._host.db.read() as tx:
            found = await store.page(tx, blob.id, after=page.after, limit=page.limit + 1)
        items, token = page.cut(found, lambda revision: revision.id)
        return pb.ListRevisionsResponse(revisions=map(to_proto, items), next_page_token=token)

    async def CommitRevision(self, request: pb.CommitRevisionRequest, context: Any) -> pb.CommitRevisionResponse:
        """See revision.proto."""
        found: BlobRevision = located().resource
        rules.require_phase(found.revision, DRAFT)
        rules.require_etag(found.revision, request.etag)
        digest = await self._validated(found)

        async def make(tx: Transaction) -> pb.CommitRevisionResponse:
            current = await self._locked(tx, found.revision.id)
            rules.require_phase(current, DRAFT)
            if current.etag != found.revision.etag:
                raise StaleEtag(current.etag)
            comment = request.comment or current.comment
            return pb.CommitRevisionResponse(
                revision=await self._update(tx, current.id, phase=COMMIT, digest=digest, comment=comment)
            )

        return await self._host.calls.once(request, pb.CommitRevisionResponse, make)

    async def _validated(self, found: BlobRevision) -> str:
        """The digest of a revision's content. Raises InvalidContent when its blob type finds anything wrong.

        The caller compares the etag afterwards: content that changed meanwhile is not what was looked at.
        """
        content = RevisionContent(self._host.db, self._contents, found.revision.id)
        violations = await self._types.get(found.blob.type).validate(content)
        if violations:
            raise InvalidContent(violations)
        return manifest_digest(await content.list())

    async def PublishRevision(self, request: pb.PublishRevisionRequest, context: Any) -> pb.PublishRevisionResponse:
        """See revision.proto."""
        found: BlobRevision = located().resource

        async def make(tx: Transaction) -> pb.PublishRevisionResponse:
            await blob_store.get(tx, found.blob.id, lock=True)
            current = await self._locked(tx, found.revision.id)
            rules.require_phase(current, COMMIT)
            rules.require_etag(current, request.etag)
            number = await store.next_number(tx, found.blob.id)
            revision = await self._update(tx, current.id, phase=SNAPSHOT, number=number, label=request.label)
            if not request.keep_default:
                now, etag = self._host.clock(), self._host.ids()
                await blob_store.set_default(tx, found.blob.id, current.id, now=now, etag=etag)
            return pb.PublishRevisionResponse(revision=revision)

        return await self._host.calls.once(request, pb.PublishRevisionResponse, make)

    async def DiscardRevision(self, request: pb.DiscardRevisionRequest, context: Any) -> pb.DiscardRevisionResponse:
        """See revision.proto."""
        found: BlobRevision = located().resource

        async def make(tx: Transaction) -> pb.DiscardRevisionResponse:
            blob = await blob_store.get(tx, found.blob.id, lock=True) or found.blob
            current = await self._locked(tx, found.revision.id)
            rules.require_phase(current, DRAFT, COMMIT)
            rules.require_etag(current, request.etag)
            dependents = {
                "default pointer": int(blob.default_revision_id == current.id),
                "branched revisions": await store.count_children(tx, current.id),
                **await self._types.dependents(tx, blob.type, current.id),
            }
            rules.require_unused(dependents)
            await content_store.delete_all(tx, current.id)
            await store.delete(tx, current.id)
            return pb.DiscardRevisionResponse(revision_id=current.id)

        return await self._host.calls.once(request, pb.DiscardRevisionResponse, make)

    async def _locked(self, tx: Transaction, revision_id: str) -> Revision:
        current = await store.get(tx, revision_id, lock=True)
        if current is None:
            raise NotFound("revision", revision_id)
        return current

    async def _update(self, tx: Transaction, revision_id: str, **values: Any) -> pb.Revision:
        await store.update(tx, revision_id, **values, update_time=self._host.clock(), etag=self._host.ids())
        return to_proto(await self._locked(tx, revision_id))
