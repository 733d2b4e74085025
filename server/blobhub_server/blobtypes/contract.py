"""The contract between BlobHub and a blob type, on one page.

A blob type is a class in the entry-point group `blobhub.blob_types`, named after the type. Its life:

1. the registry instantiates it (no arguments) and reads its name and descriptions;
2. at start, `open(host)` is entered; what it yields says which services and access kinds the type brings;
3. when a draft of such a blob is committed, `validate` is asked for everything that is wrong with its content;
4. at shutdown, after the streams have ended, `open` is left.

Content is a set of named entries, each some bytes in the object store, known by their SHA-256. The platform does
revisions, digests, access, idempotency and paging; the type does meaning.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Protocol, TypeVar

import sqlalchemy as sa
from google.protobuf.message import Message

from blobhub_server.clock import Clock
from blobhub_server.config import Settings
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.db.notify import Doorbell
from blobhub_server.errors import Violation
from blobhub_server.ids import Ids
from blobhub_server.rpc.drain import Drain

Answer = TypeVar("Answer", bound=Message)

Selected = sa.Select[tuple[str]]
"""A query of ids, for the `IN` of a statement that is about all of them at once."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A named piece of a revision's content. `digest` is SHA-256 in lower-case hex, `size` is in bytes."""

    id: str
    revision_id: str
    name: str
    digest: str
    size: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class RevisionView:
    """What a blob type sees of the revision that a call is about."""

    id: str
    blob_id: str
    org_id: str
    blob_type: str
    phase: str
    """`draft`, `commit` or `snapshot`."""
    etag: str


@dataclass(frozen=True, slots=True)
class Located:
    """Where a resource belongs: roles are held on `org_id` and `blob_id`, or by the user `user_id` on themselves.

    `org_id` is empty for what belongs to no organization; such things are their user's, or the server's administrators'.
    `resource` is the record that was found, or the error that is raised once it is known that the caller may see it.
    """

    org_id: str
    blob_id: str | None
    public: bool
    resource: Any
    user_id: str | None = None


Locator = Callable[[str], Awaitable[Located | None]]
"""Resolves the value of a request field to where it belongs; None when there is no such thing."""


@dataclass(frozen=True, slots=True)
class Service:
    """A gRPC service to serve: its full name, its servicer, and the generated `add_…Servicer_to_server`."""

    full_name: str
    servicer: object
    add: Callable[[Any, Any], None]


@dataclass(frozen=True, slots=True)
class Dependents:
    """Things of one kind that hang on something: how many, and the ids of the first hundred."""

    kind: str
    count: int
    ids: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit: its name, such as `workflow.definitions_per_revision`, what is counted, and the default.

    `held` counts what a blob holds of it, in the fullest revision or session where it is counted by those.
    """

    name: str
    description: str
    default: int
    held: Callable[[Transaction, str], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Opened:
    """What an open blob type brings.

    `locators` adds kinds of resource that its access options name. `dependents` tells what hangs on a revision, so that it
    is not discarded underneath; `in_use` what is at work in a blob, so that it is not deleted underneath; `delete` removes
    all that the type keeps for blobs that are deleted nevertheless, one or all of an organization: they are locked, and what
    is locked in them is, over all of them, in the order of ids. `limits` are those of its blobs, beside the platform's.
    """

    services: Sequence[Service]
    locators: Mapping[str, Locator] = field(default_factory=dict)
    dependents: Callable[[Transaction, str], Awaitable[Sequence[Dependents]]] | None = None
    in_use: Callable[[Transaction, str], Awaitable[Sequence[Dependents]]] | None = None
    delete: Callable[[Transaction, Selected], Awaitable[None]] | None = None
    limits: Sequence[Limit] = ()


class Content(Protocol):
    """A revision's content as `validate` sees it."""

    async def list(self) -> Sequence[Entry]:
        """All entries, ordered by name."""

    async def read(self, entry: Entry) -> bytes:
        """The entry's bytes."""


class Contents(Protocol):
    """The content of revisions, for the services of blob types."""

    async def upload(self, data: bytes) -> tuple[str, int]:
        """Store bytes; return digest and size. Do this before the transaction that refers to them."""

    async def put(
        self, tx: Transaction, revision_id: str, name: str, stored: tuple[str, int], *, limit: str, etag: str = ""
    ) -> tuple[Entry, str]:
        """Create or replace an entry of a draft; return it and the draft's new etag.

        `limit` names the limit on how many entries a revision has, which a new one may reach. Raises WrongPhase outside a
        draft, StaleEtag when `etag` is given and not the current one, LimitExceeded.
        """

    async def delete(self, tx: Transaction, revision_id: str, name: str, *, etag: str = "") -> str:
        """Remove an entry of a draft by its name; return the draft's new etag. Raises NotFound, WrongPhase, StaleEtag."""

    async def find(self, tx: Transaction, revision_id: str, name_or_id: str) -> Entry | None:
        """The entry of that name or id."""

    async def list(self, tx: Transaction, revision_id: str, *, after: str = "", limit: int | None = None) -> list[Entry]:
        """The entries by name, those after `after` first."""

    async def fullest(self, tx: Transaction, blob_id: str) -> int:
        """How many entries that revision of a blob has that has the most; what a limit on them is to count."""

    async def read(self, digest: str) -> bytes:
        """The bytes of an entry."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What is written beside a change in its transaction: an entry of the audit log, and the answer to remember.

    A `repeatable` change may be made twice under the same `request_id`, when two calls come at the same time: what the
    first one settles stays. Others fail then with IntegrityError.
    """

    entry: Mapping[str, Any]
    request: Mapping[str, Any] | None
    committed: Callable[[], None]
    repeatable: bool = False


class Calls(Protocol):
    """What a service asks about the call it is serving."""

    def located(self) -> Located:
        """What the call's access rule resolved its resource to."""

    def revision(self, blob_type: str) -> RevisionView:
        """The revision the call is about. Raises WrongBlobType when its blob is of another type."""

    async def once(self, request: Message, make: Callable[[Transaction], Awaitable[Answer]]) -> Answer:
        """Run `make` in a transaction, and write the audit log's entry and the answer to remember there.

        A request that is made again under its `request_id` does not come here: it is answered from memory. Of two that
        come at the same time one fails, with IntegrityError or whatever `make` raises, and is answered like the other.
        """

    def key(self, request: Message) -> str | None:
        """What tells the current call's request from all others, and is the same when it is made again.

        At most 160 characters; None for a request without a `request_id`.
        """

    async def replayed(self, request: Message, answer: type[Answer]) -> Answer | None:
        """The answer given before to this `request_id`, if any. Raises RequestIdReused."""

    def settling(self, request: Message, *, repeatable: bool = False) -> Callable[[Message], Settled]:
        """For a change that is made outside `once`: makes, from its answer, what is to be written beside it.

        Hand that to `settle` in the transaction of the change.
        """

    async def settle(self, tx: Transaction, settled: Sequence[Settled]) -> None:
        """Write audit entries and remembered answers; the last thing in a transaction, since it takes turns on a lock."""


class Limits(Protocol):
    """How much may be held."""

    async def value(self, tx: Transaction, name: str, *, org_id: str, blob_id: str) -> int:
        """The most that a blob, or an organization where `blob_id` is empty, may hold."""

    async def lock(self, tx: Transaction, *, org_id: str, blob_id: str) -> None:
        """Let nobody else add to a blob, or to an organization where `blob_id` is empty, until the commit: what is counted
        in it afterwards holds. Raises PermissionDenied when it is gone.
        """

    async def require(self, tx: Transaction, name: str, *, org_id: str, blob_id: str, held: int) -> None:
        """Raise LimitExceeded when `held`, counted after what is being added, is more than the limit's value."""


class Credentials(Protocol):
    """Secrets, for what runs in a blob to use. What is returned must not be stored, logged, answered or put in an event."""

    async def use(self, org_id: str, blob_id: str, alias: str) -> Mapping[str, Any]:
        """The body of the credential that an alias means to a blob: its own, else its organization's.

        Raises NotFound, CredentialUnreadable, MasterKeyMissing.
        """


@dataclass(frozen=True, slots=True)
class Host:
    """What BlobHub gives a blob type."""

    settings: Settings
    db: Database
    bell: Doorbell
    clock: Clock
    ids: Ids
    drain: Drain
    contents: Contents
    calls: Calls
    limits: Limits
    credentials: Credentials


class BlobType(ABC):
    """A kind of blob. Subclasses set the three class variables."""

    name: ClassVar[str]
    """Dotted lower-case name, such as `blobhub.compute.workflow`; also the entry point's name."""
    title: ClassVar[str]
    description: ClassVar[str]

    @abstractmethod
    def open(self, host: Host) -> AbstractAsyncContextManager[Opened]:
        """Start what the type needs; leave it to stop that."""

    @abstractmethod
    async def validate(self, content: Content) -> list[Violation]:
        """Everything that is wrong with the content of a revision that is to be committed; empty when it is valid."""
