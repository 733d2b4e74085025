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
from typing import Any, ClassVar, Protocol, Self

from blobhub_server.blobtypes.access import Locator
from blobhub_server.blobtypes.values import Dependents, Entry
from blobhub_server.clock import Clock
from blobhub_server.config import Settings
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.db.notify import Doorbell
from blobhub_server.db.schema import Selected
from blobhub_server.errors import Violation, WrongBlobType
from blobhub_server.ids import Ids
from blobhub_server.rpc.drain import Drain


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

    def of_type(self, blob_type: str) -> Self:
        """The revision itself. Raises WrongBlobType when its blob is of another type."""
        if self.blob_type != blob_type:
            raise WrongBlobType(self.blob_type, blob_type)
        return self


@dataclass(frozen=True, slots=True)
class Service:
    """A gRPC service to serve: its full name, and an object with a method for each of its RPCs, of the RPC's name.

    A handler is `async def GetNote(self, request, call)`, where `call` is a `blobtypes.call.Call` of the resource that the
    method's access option names; one that answers a stream is an asynchronous generator of messages, or of their bytes.
    """

    full_name: str
    handlers: object


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
        """The entry's bytes. Raises ContentLost."""


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

    async def pin(self, tx: Transaction, blob_id: str) -> bool:
        """Let nobody change or delete a blob until the transaction ends: for what refers to its content from elsewhere.

        Others may pin it as well. False when it is gone.
        """

    async def list(self, tx: Transaction, revision_id: str, *, after: str = "", limit: int | None = None) -> list[Entry]:
        """The entries by name, those after `after` first."""

    async def fullest(self, tx: Transaction, blob_id: str) -> int:
        """How many entries that revision of a blob has that has the most; what a limit on them is to count."""

    async def read(self, digest: str) -> bytes:
        """The bytes of an entry. Raises ContentLost when they are gone, or not what was stored."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What is written beside a change in its transaction: an entry of the audit log, and the answer to remember."""

    entry: Mapping[str, Any]
    request: Mapping[str, Any] | None
    committed: Callable[[], None]


Settle = Callable[[Transaction, Sequence[Settled]], Awaitable[None]]
"""Writes audit entries and remembered answers; the last thing in a transaction, since it takes turns on a lock."""


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
    settle: Settle
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
