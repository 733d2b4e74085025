"""RevisionService on the wire."""

from __future__ import annotations

from typing import Any

from blobhub.v1 import blob_event_pb2 as events
from blobhub.v1 import revision_pb2 as pb

from blobhub_server.blobtypes.access import Role
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.etag import require_etag
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.blobtypes.values import Dependents
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import InvalidContent, NotFound, PermissionDenied, WrongBlobType
from blobhub_server.platform.admission.absence import absent_revision
from blobhub_server.platform.admission.locators import BlobRevision, version_of
from blobhub_server.platform.blobs.contents import Contents, RevisionContent
from blobhub_server.platform.blobs.default_revisions import DefaultRevisions
from blobhub_server.platform.blobs.events import BlobEvents
from blobhub_server.platform.blobs.operations.operations import Operations
from blobhub_server.platform.rules import reference as grammar
from blobhub_server.platform.rules import revision as rules
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.content import Change, changes, manifest_digest
from blobhub_server.platform.rules.revision import COMMIT, DRAFT, SNAPSHOT, Revision
from blobhub_server.platform.store import blob as blob_store
from blobhub_server.platform.store import content as content_store
from blobhub_server.platform.store import metadata as metadata_store
from blobhub_server.platform.store import revision as store
from blobhub_server.rpc.masks import changed_fields
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.wire import to_timestamp

MAX_CHANGES = 10_000

_PHASES = {
    DRAFT: pb.REVISION_PHASE_DRAFT,
    COMMIT: pb.REVISION_PHASE_COMMIT,
    SNAPSHOT: pb.REVISION_PHASE_SNAPSHOT,
}
_NAMES = {number: name for name, number in _PHASES.items()}


def to_proto(revision: Revision) -> pb.Revision:
    """A revision as its message."""
    return pb.Revision(
        id=revision.id,
        blob_id=revision.blob_id,
        phase=_PHASES[revision.phase],
        base_revision_id=revision.base_revision_id or "",
        comment=revision.comment,
        number=revision.number or 0,
        label=revision.label,
        digest=revision.digest,
        create_time=to_timestamp(revision.create_time),
        update_time=to_timestamp(revision.update_time),
        etag=revision.etag,
        commit_time=to_timestamp(revision.commit_time) if revision.commit_time else None,
    )


def to_change(change: Change) -> pb.ContentChange:
    """A change as its message."""
    before, after = change.before, change.after
    kind = pb.CHANGE_KIND_ADDED if before is None else pb.CHANGE_KIND_REMOVED if after is None else pb.CHANGE_KIND_MODIFIED
    return pb.ContentChange(
        name=change.name,
        kind=kind,
        base_digest=before.digest if before else "",
        digest=after.digest if after else "",
        base_size=before.size if before else 0,
        size=after.size if after else 0,
    )


class RevisionService:
    """Takes revisions through their phases: draft, commit, snapshot."""

    def __init__(self, host: Host, contents: Contents, types: BlobTypes, events: BlobEvents, operations: Operations) -> None:
        self._host = host
        self._operations = operations
        self._events = events
        self._defaults = DefaultRevisions(host, types, events)
        self._contents = contents
        self._types = types

    async def CreateRevision(self, request: pb.CreateRevisionRequest, call: Call[Blob]) -> pb.CreateRevisionResponse:
        blob = call.resource
        version = grammar.parse("version", "base_revision", request.base_revision or grammar.DEFAULT).version

        async def make(tx: Transaction) -> pb.CreateRevisionResponse:
            current = await self._lock_blob(tx, blob.id)
            base = await version_of(tx, current, version, "base_revision")
            if base is None:
                raise await absent_revision(tx, blob.id, f"{request.blob}@{version}")
            rules.require_phase(base, COMMIT, SNAPSHOT)
            held = await store.count(tx, blob.id) + 1
            await self._host.limits.require(
                tx, "blob.revisions", organization_id=blob.organization_id, blob_id=blob.id, held=held
            )
            now, ids = self._host.clock(), self._host.ids
            draft = rules.make_draft(id_=ids(), blob_id=blob.id, base=base, comment=request.comment, now=now, etag=ids())
            await store.insert(tx, draft)
            await content_store.copy(tx, base.id, draft, ids)
            created = events.RevisionCreated(revision=to_proto(draft))
            await self._events.append(tx, blob.id, shows_draft=True, revision_created=created)
            return pb.CreateRevisionResponse(revision=to_proto(draft))

        return await call.once(make)

    async def GetRevision(self, request: pb.GetRevisionRequest, call: Call[BlobRevision]) -> pb.GetRevisionResponse:
        return pb.GetRevisionResponse(revision=to_proto(call.resource.revision))

    async def ListRevisions(self, request: pb.ListRevisionsRequest, call: Call[Blob]) -> pb.ListRevisionsResponse:
        blob, phase, order_by = call.resource, _NAMES.get(request.phase), request.order_by or "create_time"
        drafts = call.role is not Role.NONE
        page = Page.parse(request, blob.id, phase or "", order_by, "" if drafts else "outsider")
        async with self._host.db.scan(call.caller.party) as tx:
            found = await store.page(
                tx, blob.id, order_by=order_by, phase=phase, drafts=drafts, after=page.after, limit=page.limit + 1
            )
        items, token = await page.fill(found, lambda revision: revision.id, to_proto)
        return pb.ListRevisionsResponse(revisions=items, next_page_token=token)

    async def CommitRevision(self, request: pb.CommitRevisionRequest, call: Call[BlobRevision]) -> pb.CommitRevisionResponse:
        found = call.resource
        rules.require_phase(found.revision, DRAFT)
        require_etag(request.etag, found.revision.etag)
        digest = await self._validate(call, found)

        async def make(tx: Transaction) -> pb.CommitRevisionResponse:
            _, current = await self._lock(tx, call.resource)
            rules.require_phase(current, DRAFT)
            require_etag(found.revision.etag, current.etag)
            comment = request.comment or current.comment
            revision = await self._update(
                tx, current.id, phase=COMMIT, digest=digest, comment=comment, commit_time=self._host.clock()
            )
            await self._events.append(tx, current.blob_id, revision_committed=events.RevisionCommitted(revision=revision))
            return pb.CommitRevisionResponse(revision=revision)

        return await call.once(make)

    async def _validate(self, call: Call[BlobRevision], found: BlobRevision) -> str:
        """Validate a revision's content; return its digest. Raises InvalidContent with all that its blob type finds wrong.

        The caller compares the etag afterwards, because the content may change meanwhile.
        """
        content = RevisionContent(self._host.db, self._contents, found.revision.id, call.caller.party)
        violations = await self._types.get(found.blob.type).validate(content)
        if violations:
            raise InvalidContent(violations)
        return manifest_digest(await content.list())

    async def PublishRevision(
        self, request: pb.PublishRevisionRequest, call: Call[BlobRevision]
    ) -> pb.PublishRevisionResponse:
        async def make(tx: Transaction) -> pb.PublishRevisionResponse:
            blob, current = await self._lock(tx, call.resource)
            rules.require_phase(current, COMMIT)
            require_etag(request.etag, current.etag)
            number = await store.next_number(tx, blob.id)
            revision = await self._update(tx, current.id, phase=SNAPSHOT, number=number, label=request.label)
            await self._events.append(tx, blob.id, revision_published=events.RevisionPublished(revision=revision))
            if not request.keep_default:
                await self._defaults.move(tx, blob, current)
            return pb.PublishRevisionResponse(revision=revision)

        return await call.once(make)

    async def DiscardRevision(
        self, request: pb.DiscardRevisionRequest, call: Call[BlobRevision]
    ) -> pb.DiscardRevisionResponse:
        async def make(tx: Transaction) -> pb.DiscardRevisionResponse:
            blob, current = await self._lock(tx, call.resource)
            rules.require_phase(current, DRAFT, COMMIT)
            require_etag(request.etag, current.etag)
            rules.require_unused(await self._dependents(tx, blob, current))
            await self._operations.cancel_of_revision(tx, current.id)
            await metadata_store.delete_all(tx, current.id)
            await self._contents.discard(tx, blob, current.id)
            await store.delete(tx, current.id)
            discarded = events.RevisionDiscarded(revision_id=current.id)
            await self._events.append(tx, blob.id, shows_draft=current.phase == DRAFT, revision_discarded=discarded)
            return pb.DiscardRevisionResponse()

        return await call.once(make)

    async def UpdateRevision(self, request: pb.UpdateRevisionRequest, call: Call[BlobRevision]) -> pb.UpdateRevisionResponse:
        async def make(tx: Transaction) -> pb.UpdateRevisionResponse:
            _, current = await self._lock(tx, call.resource)
            rules.require_phase(current, DRAFT)
            require_etag(request.etag, current.etag)
            revision = await self._update(
                tx, current.id, **{field: getattr(request, field) for field in changed_fields(request, "comment")}
            )
            updated = events.RevisionUpdated(revision=revision)
            await self._events.append(tx, current.blob_id, shows_draft=True, revision_updated=updated)
            return pb.UpdateRevisionResponse(revision=revision)

        return await call.once(make)

    async def CompareRevisions(
        self, request: pb.CompareRevisionsRequest, call: Call[BlobRevision]
    ) -> pb.CompareRevisionsResponse:
        found = call.resource
        base = call.further_resources[0]
        if base.blob.type != found.blob.type:
            raise WrongBlobType(base.blob.type, found.blob.type)
        async with self._host.db.scan(call.caller.party) as tx:
            old = await self._contents.list(tx, base.revision.id)
            new = await self._contents.list(tx, found.revision.id)
        differing = list(changes(old, new))
        return pb.CompareRevisionsResponse(
            changes=map(to_change, differing[:MAX_CHANGES]),
            unchanged=len(old) - sum(change.before is not None for change in differing),
            truncated=len(differing) > MAX_CHANGES,
        )

    async def GetRevisionDependents(
        self, request: pb.GetRevisionDependentsRequest, call: Call[BlobRevision]
    ) -> pb.GetRevisionDependentsResponse:
        found = call.resource
        async with self._host.db.scan(call.caller.party) as tx:
            dependents = await self._dependents(tx, found.blob, found.revision)
        messages = [pb.Dependents(kind=item.kind, count=item.count, ids=item.ids) for item in dependents if item.count]
        return pb.GetRevisionDependentsResponse(dependents=messages)

    async def _dependents(self, tx: Transaction, blob: Blob, revision: Revision) -> list[Dependents]:
        default = [blob.id] if blob.default_revision_id == revision.id else []
        return [
            Dependents(kind="default pointer", count=len(default), ids=default),
            await store.branches(tx, revision.id),
            *await self._types.dependents(tx, blob.type, revision.id),
        ]

    async def _lock_blob(self, tx: Transaction, blob_id: str) -> Blob:
        """Lock a blob and return it as it is now. Raises PermissionDenied when it is gone."""
        blob = await blob_store.get(tx, blob_id, lock=True)
        if blob is None:
            raise PermissionDenied
        return blob

    async def _lock(self, tx: Transaction, wanted: BlobRevision) -> tuple[Blob, Revision]:
        """Lock a revision's blob, then the revision; return both as they are now. Raises NotFound."""
        blob = await self._lock_blob(tx, wanted.blob_id)
        current = await store.get(tx, wanted.id, lock=True)
        if current is None:
            raise NotFound("revision", wanted.id)
        return blob, current

    async def _update(self, tx: Transaction, revision_id: str, **values: Any) -> pb.Revision:
        await store.update(tx, revision_id, **values, update_time=self._host.clock(), etag=self._host.ids())
        current = await store.get(tx, revision_id)
        assert current is not None, "it is locked in this transaction"
        return to_proto(current)
