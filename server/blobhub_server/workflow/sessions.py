"""Creates sessions, for callers and for invocations."""

from __future__ import annotations

from collections.abc import Sequence

from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.db.engine import IntegrityError, Transaction
from blobhub_server.errors import AlreadyExists, BlobHubError, LimitExceeded, NotFound
from blobhub_server.workflow.rules import limit
from blobhub_server.workflow.rules.session import NO_EVENT_TIME, OPEN, Session
from blobhub_server.workflow.store import session as store


class Sessions:
    """Creates sessions."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def create(
        self, tx: Transaction, revision: RevisionView, *, reference: str, alias: str, description: str = ""
    ) -> Session:
        """Open a session of a revision, which `reference` refers to. Raises NotFound, AlreadyExists, LimitExceeded."""
        session, scope = self._new(revision, alias, description, closes_itself=False), _scope(revision)
        await self._host.limits.lock(tx, **scope)
        if await self._host.revisions.resolve(tx, revision.id) is None:
            raise NotFound("revision", reference)
        try:
            async with tx.savepoint():
                await store.insert(tx, session)
        except IntegrityError:
            raise AlreadyExists("session", alias) from None
        await self._host.limits.require(tx, limit.SESSIONS, **scope, held=await store.count_open(tx, revision.blob_id))
        return session

    async def create_all(
        self, tx: Transaction, revision: RevisionView, aliases: Sequence[str], *, reference: str
    ) -> list[Session | BlobHubError]:
        """Open a session for each alias, as far as the limit allows; NotFound or LimitExceeded for each of the others.

        The caller has locked the blob, and no session that is not closed has one of the aliases. Empty ones name none: a
        session without is for one execution, and is closed when that has ended.
        """
        if not aliases:
            return []
        if await self._host.revisions.resolve(tx, revision.id) is None:
            return [NotFound("revision", reference)] * len(aliases)
        most = await self._host.limits.value(tx, limit.SESSIONS, **_scope(revision))
        room = max(0, most - await store.count_open(tx, revision.blob_id))
        opened = [self._new(revision, alias, "", closes_itself=not alias) for alias in aliases[:room]]
        await store.insert_all(tx, opened)
        full = LimitExceeded(limit.SESSIONS, most, revision.blob_id)
        return [*opened, *[full] * (len(aliases) - len(opened))]

    def _new(self, revision: RevisionView, alias: str, description: str, *, closes_itself: bool) -> Session:
        now = self._host.clock()
        return Session(
            id=self._host.ids(),
            organization_id=revision.organization_id,
            blob_id=revision.blob_id,
            revision_id=revision.id,
            alias=alias or None,
            description=description,
            state=OPEN,
            closes_itself=closes_itself,
            last_session_sequence=0,
            last_event_time=NO_EVENT_TIME,
            executions=0,
            log_bytes=0,
            counted_log_bytes=0,
            create_time=now,
            update_time=now,
        )


def _scope(revision: RevisionView) -> dict[str, str]:
    """Where the sessions of a revision are counted."""
    return {"organization_id": revision.organization_id, "blob_id": revision.blob_id}
