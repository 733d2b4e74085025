"""Starts what invocations ask for, many in one transaction: each thing is looked up once, and all are stored together.

The order of locks is blobs by id, sessions by id, and what the journal locks after them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from blobhub_server.background import Turns
from blobhub_server.blobtypes.access import Role
from blobhub_server.blobtypes.capabilities import Invocation
from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import BlobHubError, PermissionDenied, StorageUnavailable
from blobhub_server.workflow.definitions.finder import Definitions, Found
from blobhub_server.workflow.errors import TYPE, CauseReused
from blobhub_server.workflow.lookups import Lookups
from blobhub_server.workflow.rules.execution import Cause, CauseKind, Execution, checked_input
from blobhub_server.workflow.rules.session import Session
from blobhub_server.workflow.runtime.contract import PreparedStart, Runtime, Start
from blobhub_server.workflow.sessions import Sessions
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store import session as session_store

Answer = Execution | BlobHubError
"""The execution that an invocation has started, or why it has started none."""


@dataclass(slots=True)
class Asked:
    """An invocation, and what is known of it by now."""

    invocation: Invocation
    revision: RevisionView
    input_data: Mapping[str, Any]
    definition: Found | None = None
    session: Session | None = None

    @property
    def cause(self) -> Cause:
        """What the execution is started for."""
        return Cause(CauseKind.FIRING, self.invocation.cause)

    def prepared(self) -> PreparedStart:
        """The start, once definition and session are known."""
        assert self.session is not None, "it was found or made"
        start = Start(
            session=self.session,
            definition=self.invocation.definition,
            input_data=self.input_data,
            actor_id=self.invocation.actor_id,
            cause=self.cause,
            revision=self.revision,
        )
        return PreparedStart(start=start, definition=self.definition, first=None)


@dataclass(slots=True)
class Batch:
    """Invocations of one transaction, and the answers by cause. `opened` holds the ids of sessions made for them."""

    asked: list[Asked] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    opened: set[str] = field(default_factory=set)
    lookups: Lookups = field(default_factory=Lookups)

    @property
    def left(self) -> list[Asked]:
        """Those that have no answer."""
        return [each for each in self.asked if each.invocation.cause not in self.answers]

    @contextmanager
    def answering(self, invocation: Invocation) -> Iterator[None]:
        """Have an invocation be answered with what the block raises, and the others go on."""
        try:
            yield
        except StorageUnavailable:
            raise
        except BlobHubError as error:
            self.answers[invocation.cause] = error

    def answer(self, asked: Asked, answer: Answer) -> None:
        """Answer an invocation. Its cause may have started an execution of another blob, which is not given away."""
        foreign = isinstance(answer, Execution) and answer.blob_id != asked.revision.blob_id
        self.answers[asked.invocation.cause] = CauseReused(asked.invocation.cause) if foreign else answer


class Invoking:
    """Starts executions in the transactions of other blob types."""

    def __init__(self, host: Host, definitions: Definitions, runtime: Runtime) -> None:
        self._host = host
        self._definitions = definitions
        self._runtime = runtime
        self._sessions = Sessions(host)

    async def start_all(self, tx: Transaction, invocations: Sequence[Invocation]) -> Mapping[str, Answer]:
        """Start all that can be started; return the answers by cause. The causes are different ones."""
        batch = Batch()
        await self._admit(tx, invocations, batch)
        await self._lock_blobs(tx, batch)
        await self._answer_known(tx, batch)
        await self._find_definitions(tx, batch)
        await self._open_sessions(tx, batch)
        await self._start(tx, batch)
        return batch.answers

    async def revision(self, tx: Transaction, invocation: Invocation) -> RevisionView:
        """The revision to invoke, once the actor is found to be allowed to."""
        found = await self._host.revisions.resolve(tx, invocation.revision)
        if found is None or await self._host.actors.role(tx, invocation.actor_id, found.place) < Role.WRITE:
            raise PermissionDenied
        if isinstance(found.resource, BlobHubError):
            raise found.resource
        return found.resource.require_type(TYPE)

    async def _admit(self, tx: Transaction, invocations: Sequence[Invocation], batch: Batch) -> None:
        turns = Turns()
        for each in invocations:
            with batch.answering(each):
                key = ("revision", each.actor_id, each.revision)
                revision = await batch.lookups.once(key, partial(self.revision, tx, each))
                asked = Asked(invocation=each, revision=revision, input_data=checked_input(each.inputs))
                batch.asked.append(asked)
            await turns.pause()

    async def _lock_blobs(self, tx: Transaction, batch: Batch) -> None:
        """Lock the blobs against deletion, and where a session is to be made, against whoever else makes one.

        With that lock, whoever made the session or started the same cause has committed.
        """
        for asked in batch.left:
            asked.session = await self._find_session(tx, batch, asked)
        lacking = {asked.revision.blob_id for asked in batch.left if asked.session is None}
        for asked in sorted(batch.left, key=lambda asked: asked.revision.blob_id):
            with batch.answering(asked.invocation):
                await batch.lookups.once(("lock", asked.revision.blob_id), partial(self._lock, tx, asked.revision, lacking))

    async def _find_session(self, tx: Transaction, batch: Batch, asked: Asked) -> Session | None:
        """The session of a revision that has the alias and is not closed."""
        revision_id, alias = asked.revision.id, asked.invocation.session
        find = partial(session_store.get_by_alias, tx, revision_id, alias)
        return await batch.lookups.once(("session", revision_id, alias), find) if alias else None

    async def _lock(self, tx: Transaction, revision: RevisionView, lacking: Collection[str]) -> None:
        if revision.blob_id in lacking:
            await self._host.limits.lock(tx, organization_id=revision.organization_id, blob_id=revision.blob_id)
        else:
            await self._host.contents.pin(tx, revision.blob_id)

    async def _answer_known(self, tx: Transaction, batch: Batch) -> None:
        """Answer with the executions that were started by the same causes before."""
        known = await execution_store.find_by_causes(tx, [asked.cause for asked in batch.left])
        for asked in batch.left:
            if asked.cause in known:
                batch.answer(asked, known[asked.cause])

    async def _find_definitions(self, tx: Transaction, batch: Batch) -> None:
        turns = Turns()
        for asked in batch.left:
            await turns.pause()
            with batch.answering(asked.invocation):
                revision_id, definition = asked.revision.id, asked.invocation.definition
                find = partial(self._definitions.runnable, tx, revision_id, definition)
                asked.definition = await batch.lookups.once(("definition", revision_id, definition), find)
                asked.definition.require_inputs(asked.input_data)

    async def _open_sessions(self, tx: Transaction, batch: Batch) -> None:
        """Make the sessions that are lacking: one for each alias, and one for each invocation that names none."""
        lacking: dict[str, dict[str, list[Asked]]] = {}
        for asked in batch.left:
            if asked.session is None:
                alias = asked.invocation.session
                group = lacking.setdefault(asked.revision.id, {}).setdefault(alias or asked.invocation.cause, [])
                group.append(asked)
        for groups in lacking.values():
            await self._open_sessions_of_revision(tx, batch, [*groups.values()])

    async def _open_sessions_of_revision(self, tx: Transaction, batch: Batch, groups: Sequence[Sequence[Asked]]) -> None:
        first = groups[0][0]
        wanted = []
        for group in groups:
            revision_id, alias = group[0].revision.id, group[0].invocation.session
            made = await session_store.get_by_alias(tx, revision_id, alias) if alias else None
            if made is None:
                wanted.append(group)
            for asked in group:
                asked.session = made  # by somebody else, before the blob was locked
        aliases = [group[0].invocation.session for group in wanted]
        opened = await self._sessions.create_all(tx, first.revision, aliases, reference=first.invocation.revision)
        for group, session in zip(wanted, opened, strict=True):
            for asked in group:
                if isinstance(session, Session):
                    asked.session = session
                    batch.opened.add(session.id)
                else:
                    batch.answer(asked, session)

    async def _start(self, tx: Transaction, batch: Batch) -> None:
        starting = batch.left
        answers = await self._runtime.join_all(tx, [asked.prepared() for asked in starting])
        for asked, answer in zip(starting, answers, strict=True):
            batch.answer(asked, answer)
        unused = batch.opened - {answer.session_id for answer in answers if isinstance(answer, Execution)}
        if unused:  # They were made for what was refused, or had been started by somebody else.
            await session_store.collect(tx, sorted(unused), len(unused))
