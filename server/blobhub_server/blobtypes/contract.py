"""The contract between BlobHub and a blob type, on one page.

A blob type is a class in the entry-point group `blobhub.blob_types`, named after the type. Its life:

1. the registry instantiates it (no arguments) and reads its class variables;
2. at start, `open(host, given)` is entered, after the types that offer what this one needs or wants; what it yields says
   which services, access kinds and capabilities the type brings; once the server answers calls, `on_serving` is called;
3. when a draft of such a blob is committed, `validate` returns everything that is wrong with its content;
4. at shutdown, after the streams have ended, `open` is left, before the types that offer what this one needs or wants.

Types know nothing of each other. They meet through capabilities: one type *offers* an object that fulfils a protocol, others
*need* it, or *want* it and do without. Those that ship are in `blobtypes/capabilities.py`.

Content is a set of named entries; each is bytes in the object store, identified by their SHA-256. The platform provides
revisions, digests, access, idempotency and paging; the type defines what the content means.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar, cast

from google.protobuf.descriptor import EnumDescriptor

from blobhub_server.blobtypes.access import Caller, Locator, Place, Resolution, Role
from blobhub_server.blobtypes.listing import Blobs
from blobhub_server.blobtypes.operations import Operations, Perform
from blobhub_server.blobtypes.values import Dependents, Entry
from blobhub_server.clock import Clock
from blobhub_server.config import Settings, SettingsModel
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.db.notify import Doorbell
from blobhub_server.db.schema import Table
from blobhub_server.errors import Violation, WrongBlobType
from blobhub_server.ids import Ids
from blobhub_server.objects.contract import ObjectStore
from blobhub_server.rpc.access_options import MethodAccess
from blobhub_server.rpc.drain import Drain
from blobhub_server.turnstile import Party

Thing = TypeVar("Thing")

DELETIONS = "deletions"
"""The doorbell that is rung, on all servers, when something was deleted. What runs in blobs listens, and stops what is not
there any more (`db/presence.py`)."""


class BlobView(Protocol):
    """What a blob type sees of the blob that a call is about."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def organization_id(self) -> str:
        """The organization that it belongs to; it never changes."""

    @property
    def type(self) -> str:
        """The name of its type."""


@dataclass(frozen=True, slots=True)
class RevisionView:
    """What a blob type sees of the revision that a call is about."""

    id: str
    blob_id: str
    organization_id: str
    blob_type: str
    phase: str
    """`draft`, `commit` or `snapshot`."""
    etag: str

    def require_type(self, blob_type: str) -> Self:
        """The revision itself, once its blob's type is checked. Raises WrongBlobType."""
        if self.blob_type != blob_type:
            raise WrongBlobType(self.blob_type, blob_type)
        return self


@dataclass(frozen=True, slots=True)
class Service:
    """A gRPC service to serve: its full name, and an object with a method for each RPC, named as the RPC.

    A handler is `async def GetNote(self, request, call)`, where `call` is a `blobtypes.call.Call` of the resource that the
    method's access option names. A streaming handler is an asynchronous generator of messages, or of encoded messages.
    """

    full_name: str
    handlers: object


@dataclass(frozen=True, slots=True)
class ForeignService(Service):
    """A service whose proto is not the type's own, so that it has no access options: `access` says it, by method."""

    access: Mapping[str, MethodAccess]


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit: its name, such as `workflow.definitions_per_revision`, what is counted, and the default.

    `held` counts how much of it a blob holds, or an organization, by its id; for a limit on each revision or session, how
    much the fullest one holds.
    """

    name: str
    description: str
    default: int
    held: Callable[[Transaction, str], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Check:
    """A line of `blobhub-server doctor`: what is checked, and a function that checks it and returns the result in words.

    The function raises StartError when something is wrong, and StartWarning when it may be. A server may be running.
    """

    what: str
    look: Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Opened:
    """What an open blob type brings.

    `locators` are for the kinds of resource that its access options name. `dependents` returns what of this type depends on
    a revision, of whatever type its blob is; it is then not discarded. What is in other blobs it counts and does not name:
    whoever reads the revision may not see them. `in_use` returns what runs in a blob, which is then not deleted unless the
    request says so. `collect` removes rows that the type stores for deleted blobs, given by their ids: so many at most, in
    a transaction of their own, in short statements. It returns how many it has removed; fewer than it may remove mean that
    nothing of these blobs is left. It is called until it says so, some time after the deletion, and again after a kill.
    `limits` are those of its blobs, beside the platform's; `organization_limits` those on what all blobs of an organization
    hold together. `offers` has an object for every capability that the type says it offers. `on_serving` begins work that
    was left from before the start: calls are not to wait for it. `large_services` are those of its services that the port
    for larger messages has as well, with the handlers for it.

    `on_default_moved(tx, blob_id, revision_id)` is called when the default revision of a blob of the type becomes another
    one, in the transaction that moves it, and after everything else that it does to the blob, which it has locked. What it
    raises undoes the move and refuses the call. The first draft of a new blob is its default revision: that is no move.

    Bytes that no entry refers to are removed after an hour or more. `objects_in_use(tx, digests)` returns those of some
    objects that rows of the type need beside entries, and `uploads_open(tx, upload_ids)` those of some uploads in parts that
    it has open. A row that says so is committed within the hour of when the bytes were stored, and before the first part.

    `operations` has the performers of the kinds of operation that it begins, such as `onnx.process_model`.
    """

    services: Sequence[Service]
    locators: Mapping[str, Locator] = field(default_factory=dict)
    dependents: Callable[[Transaction, str], Awaitable[Sequence[Dependents]]] | None = None
    in_use: Callable[[Transaction, str], Awaitable[Sequence[Dependents]]] | None = None
    collect: Callable[[Transaction, Sequence[str], int], Awaitable[int]] | None = None
    limits: Sequence[Limit] = ()
    organization_limits: Sequence[Limit] = ()
    offers: Mapping[type, object] = field(default_factory=dict)
    on_serving: Callable[[], None] | None = None
    on_default_moved: Callable[[Transaction, str, str], Awaitable[None]] | None = None
    objects_in_use: Callable[[Transaction, Sequence[str]], Awaitable[Collection[str]]] | None = None
    uploads_open: Callable[[Transaction, Sequence[str]], Awaitable[Collection[str]]] | None = None
    operations: Mapping[str, Perform] = field(default_factory=dict)
    large_services: Sequence[Service] = ()


class Revisions(Protocol):
    """Resolves references to revisions."""

    async def locate(self, value: str, caller: Caller) -> Resolution[RevisionView] | None:
        """What a reference in a request leads to for a caller, as a Locator does. For locators of what is in revisions.

        Raises InvalidReference.
        """

    async def resolve(self, tx: Transaction, reference: str) -> Resolution[RevisionView] | None:
        """What a reference that does not come from a request's field leads to, as a transaction sees it.

        None when there is no such blob, or no revision with that id. Raises InvalidReference.
        """


class Actors(Protocol):
    """The roles of actors: those on whose behalf something is done without a call of theirs."""

    async def role(self, tx: Transaction, actor_id: str, place: Place) -> Role:
        """The role that a key or user (`Caller.actor_id`) holds on a place now, whether or not the place is public.

        NONE for a key that is revoked or expired, and for a key or user that is disabled or deleted.
        """

    async def find_revision(self, actor_id: str, reference: str) -> RevisionView:
        """The revision that a reference leads to, for a key or user that may read it now.

        Raises what a call of theirs is refused with: PermissionDenied, NotFound, Renamed and errors of the reference.
        """


class Content(Protocol):
    """A revision's content as `validate` sees it."""

    @property
    def party(self) -> Party:
        """Whoever it is validated for, for what takes turns."""

    async def list(self) -> Sequence[Entry]:
        """All entries, ordered by name."""

    async def read(self, entry: Entry) -> bytes:
        """The entry's bytes. Raises ContentLost."""


class Contents(Protocol):
    """The content of revisions, for the services of blob types."""

    async def upload(self, data: bytes) -> tuple[str, int]:
        """Store bytes; return digest and size. Do this before the transaction that refers to them."""

    async def put(
        self,
        tx: Transaction,
        revision_id: str,
        name: str,
        stored: tuple[str, int],
        *,
        limit: str | None,
        etag: str = "",
        create_only: bool = False,
    ) -> tuple[Entry, str]:
        """Create an entry of a draft, or replace it unless `create_only`; return it and the draft's new etag.

        `limit` names the limit on the number of entries of a revision; None for a type whose entries have a few fixed names.
        Raises WrongPhase outside a draft, StaleEtag when `etag` is given and is not the current one, AlreadyExists when
        `create_only` and the name is taken, NotFound when `etag` is `*` and there is no entry to replace, LimitExceeded.
        """

    async def delete(self, tx: Transaction, revision_id: str, name: str, *, etag: str = "") -> str:
        """Remove an entry of a draft by its name; return the draft's new etag. Raises NotFound, WrongPhase, StaleEtag."""

    async def find(self, tx: Transaction, revision_id: str, name_or_id: str) -> Entry | None:
        """The entry of a revision with that name or id; None when there is none."""

    async def find_some(self, tx: Transaction, revision_id: str, names: Collection[str]) -> dict[str, Entry]:
        """Several entries of a revision, by their names; those that there are."""

    async def get(self, tx: Transaction, entry_id: str) -> Entry | None:
        """The entry with that id, in whatever revision it is; None when there is none."""

    async def pin(self, tx: Transaction, blob_id: str) -> bool:
        """Lock a blob, whose content a row elsewhere refers to, against change and deletion until the transaction ends.

        Several transactions can pin one blob. False when it is gone.
        """

    async def list(
        self,
        tx: Transaction,
        revision_id: str,
        *,
        after: str = "",
        limit: int | None = None,
        prefix: str = "",
        descending: bool = False,
    ) -> list[Entry]:
        """The entries whose names begin with a prefix, by name, those after `after`."""

    async def fullest(self, tx: Transaction, blob_id: str) -> int:
        """The number of entries in the blob's fullest revision, for counting against a limit on entries."""

    async def largest(self, tx: Transaction, blob_id: str, name: str) -> int:
        """The bytes of the blob's largest entry of that name, for counting against a limit on bytes; 0 without one."""

    async def read(self, digest: str) -> bytes:
        """The bytes of an entry. Raises ContentLost when they are missing or corrupt."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What is written beside a change in its transaction: an audit entry, and the answer to remember."""

    entry: Mapping[str, Any]
    request: Mapping[str, Any] | None
    on_commit: Callable[[], None]


Settle = Callable[[Transaction, Sequence[Settlement]], Awaitable[None]]
"""Writes audit entries and remembered answers, last in a transaction, because all such transactions share one lock."""


class Limits(Protocol):
    """How much may be held."""

    async def value(self, tx: Transaction, name: str, *, organization_id: str, blob_id: str) -> int:
        """The limit's value for a blob, or for an organization when `blob_id` is empty.

        Raises KeyError when no limit has the name.
        """

    async def lock(self, tx: Transaction, *, organization_id: str, blob_id: str) -> None:
        """Lock a blob, or an organization when `blob_id` is empty, so that counts stay true until the commit.

        Raises PermissionDenied when it is gone.
        """

    async def require(self, tx: Transaction, name: str, *, organization_id: str, blob_id: str, held: int) -> None:
        """Raise LimitExceeded when `held`, which includes what is being added, is above the limit's value.

        Raises KeyError when no limit has the name.
        """


class Credentials(Protocol):
    """Secrets for what runs in a blob. Callers must not store, log or answer them, or put them in an event."""

    async def use(self, organization_id: str, blob_id: str, alias: str) -> Mapping[str, Any]:
        """The body of the credential that an alias names for a blob: the blob's own, else its organization's.

        Raises NotFound, CredentialUnreadable, MasterKeyMissing.
        """


@dataclass(frozen=True, slots=True)
class Host:
    """What BlobHub gives a blob type. `server_id` is unique to one run of a server."""

    server_id: str
    settings: Settings
    db: Database
    bell: Doorbell
    clock: Clock
    ids: Ids
    drain: Drain
    blobs: Blobs
    revisions: Revisions
    actors: Actors
    contents: Contents
    objects: ObjectStore
    settle: Settle
    limits: Limits
    credentials: Credentials
    operations: Operations


class Given:
    """What a blob type asks for by its class variables: `given[MySettings]`, or a capability, `given[Invocable]`."""

    def __init__(self, things: Mapping[object, object]) -> None:
        self._things = things

    # Not `type[Thing]`: type checkers do not accept a protocol for that, because it cannot be instantiated.
    def __getitem__(self, kind: Callable[..., Thing]) -> Thing:
        """The object of a kind. Raises KeyError for what was not asked for."""
        return cast(Thing, self._things[kind])

    def find(self, kind: Callable[..., Thing]) -> Thing | None:
        """The object of a capability that the type wants; None where no installed type offers it."""
        return cast("Thing | None", self._things.get(kind))


class BlobType(ABC):
    """A type of blob. Subclasses set the first three class variables, and the others as needed."""

    name: ClassVar[str]
    """Words of a-z and 0-9 with dots between, such as `blobhub.compute.workflow`; also the entry point's name."""
    title: ClassVar[str]
    description: ClassVar[str]
    needs: ClassVar[Sequence[type]] = ()
    """The capabilities it needs of others, as `runtime_checkable` protocols; `given` has an object for each."""
    wants: Sequence[type] = ()
    """The capabilities that it uses where an installed type offers them; `given.find` has an object for each, or None."""
    offers: ClassVar[Sequence[type]] = ()
    """The capabilities it offers, as `runtime_checkable` protocols; only one installed type may offer each."""
    settings: ClassVar[type[SettingsModel]] = SettingsModel
    """The settings it brings, each with a description and a name of its own; their values are in an object in `given`."""
    reasons: ClassVar[EnumDescriptor | None] = None
    """The enum of the reasons of its own errors, whose `domain` is the type's name; None when it has none."""
    tables: ClassVar[Sequence[Table]] = ()
    """Its tables, on `db.schema.metadata`. Foreign keys may name the platform's tables."""
    migrations: ClassVar[Path | None] = None
    """The folder of the Alembic revisions that make those tables, `0001_….py` first; None without tables."""
    descriptors: ClassVar[Path | None] = None
    """The descriptor set of its protos with source info, so that reflection shows their comments; None shows none."""

    def checks(self, settings: Settings, given: Given) -> Sequence[Check]:
        """The doctor's checks for this type. Nothing is open: `given` has only the type's own settings."""
        return ()

    @abstractmethod
    def open(self, host: Host, given: Given) -> AbstractAsyncContextManager[Opened]:
        """Start the type's parts when entered, and stop them when left."""

    @abstractmethod
    async def validate(self, content: Content) -> list[Violation]:
        """Everything that is wrong with the content of a draft that is to be committed; empty when it is valid."""
