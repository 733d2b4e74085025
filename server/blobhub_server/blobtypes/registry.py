"""The installed blob types. Built-in types and those of others are found in the same way."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import Any

from blobhub_server.blobtypes.contract import BlobType, Check, Given, Host, Limit, Opened
from blobhub_server.blobtypes.distinct import require_one_owner
from blobhub_server.blobtypes.operations import Perform
from blobhub_server.blobtypes.order import opening_order
from blobhub_server.blobtypes.reasons import require_declared
from blobhub_server.blobtypes.values import Dependents
from blobhub_server.config import Settings, SettingsModel, unknown_setting, variable
from blobhub_server.db.engine import Transaction
from blobhub_server.db.migrations import Chain, has_tables_of
from blobhub_server.errors import BlobTypeNotInstalled, UnknownBlobType
from blobhub_server.start import StartError

GROUP = "blobhub.blob_types"

NAME = re.compile(r"(?=.{3,47}$)[a-z0-9]+(\.[a-z0-9]+)+")
NAME_MEANS = "words of a-z and 0-9 with dots between, at most 47 characters"
"""The name is part of a table's name, which PostgreSQL cuts at 63 characters, with `_` for the dots."""


class DuplicateBlobType(StartError):
    """Two distributions bring a blob type of the same name."""


class UnknownSetting(StartError):
    """A variable in the environment looks like a setting, and nobody reads it."""


class BrokenBlobType(StartError):
    """A blob type cannot be loaded, or is not what its entry point says."""


class BrokenOffer(StartError):
    """A blob type does not bring the capabilities that it says it offers."""


class MissingCollect(StartError):
    """A blob type has rows that refer to what others delete, and cannot collect them."""


class ForbiddenReference(StartError):
    """A blob type has a foreign key to blobs or organizations, whose rows are removed before those of the type."""


@dataclass(slots=True)
class InstalledType:
    """A blob type, its distribution, its settings, and, once it is open, what it brings."""

    type: BlobType
    distribution: str
    settings: SettingsModel
    opened: Opened | None = None

    def forget(self) -> None:
        """Forget what the type brought: it is closed."""
        self.opened = None

    def checks(self, settings: Settings) -> Sequence[Check]:
        """The type's checks for the doctor. Raises whatever the type does."""
        return self.type.checks(settings, Given({self.type.settings: self.settings}))


class BlobTypes:
    """All blob types, by name."""

    def __init__(self, installed: Mapping[str, InstalledType]) -> None:
        """Raises CapabilityMissing, CapabilityAmbiguous, CircularNeeds, DuplicateName, BrokenReason."""
        self._installed = dict(installed)
        require_one_owner("setting", _settings(self.all()))
        require_declared([item.type for item in self.all()])
        self._opening = [item.name for item in opening_order(item.type for item in installed.values())]

    @classmethod
    def load(cls, points: Iterable[EntryPoint] | None = None, *, settings: Mapping[str, Any] | None = None) -> BlobTypes:
        """Load every entry point of the group. Raises StartError for types that do not load or do not fit together.

        `settings` override the environment, by name. Raises ValidationError when a setting is wrong, UnknownSetting for a
        variable of the environment that nobody reads.
        """
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=GROUP) if points is None else points:
            other = found.setdefault(point.name, point)
            if other is not point and _origin(other) != _origin(point):
                raise DuplicateBlobType(
                    f"the blob type {point.name} comes from both {_origin(other)} and {_origin(point)}; remove one"
                )
        types = cls({name: _installed(point, settings or {}) for name, point in found.items()})
        if unknown := unknown_setting([name for name, _ in _settings(types.all())]):
            raise UnknownSetting(unknown)
        return types

    @asynccontextmanager
    async def running(self, host: Host) -> AsyncIterator[None]:
        """Open the types in opening order; on leaving, close them in reverse.

        Raises BrokenOffer, MissingCollect, ForbiddenReference.
        """
        offered: dict[type, object] = {}
        async with AsyncExitStack() as stack:
            for installed in self.in_opening_order():
                given: dict[object, object] = {kind: offered[kind] for kind in installed.type.needs}
                given |= {kind: offered[kind] for kind in installed.type.wants if kind in offered}
                given[installed.type.settings] = installed.settings
                stack.callback(installed.forget)  # After it is closed: what it does last may ask for its own limits.
                opened = await stack.enter_async_context(installed.type.open(host, Given(given)))
                _require_offers(installed.type, opened)
                _require_collect(installed.type, opened)
                installed.opened = opened
                offered |= opened.offers
            yield

    def on_serving(self) -> None:
        """Tell the open types that the server answers calls, so that they begin what was left from before the start."""
        for opened in self.opened().values():
            if opened.on_serving is not None:
                opened.on_serving()

    def all(self) -> list[InstalledType]:
        """All blob types, ordered by name."""
        return [self._installed[name] for name in sorted(self._installed)]

    def in_opening_order(self) -> list[InstalledType]:
        """All blob types, each after those that offer what it needs."""
        return [self._installed[name] for name in self._opening]

    def chains(self) -> list[Chain]:
        """The types' migrations, those of a type after those of the types that offer what it needs."""
        types = [item.type for item in self.in_opening_order()]
        return [Chain.for_type(item.name, item.migrations) for item in types if item.migrations is not None]

    def descriptors(self) -> list[Path]:
        """The types' descriptor sets with source info."""
        return [item.type.descriptors for item in self.all() if item.type.descriptors is not None]

    def opened(self) -> dict[str, Opened]:
        """What the open blob types bring, by the types' names and in their order."""
        return {item.type.name: item.opened for item in self.all() if item.opened is not None}

    def get(self, name: str) -> BlobType:
        """The blob type of a name. Raises UnknownBlobType."""
        found = self._installed.get(name)
        if found is None:
            # A text of another form is not repeated: it may be a secret in the wrong field.
            raise UnknownBlobType(name if NAME.fullmatch(name) else "", sorted(self._installed))
        return found.type

    async def dependents(self, tx: Transaction, name: str, revision_id: str) -> Sequence[Dependents]:
        """What depends on a revision, as all blob types say; `name` is that of its blob. Raises BlobTypeNotInstalled."""
        await self._require(tx, name)
        asks = [opened.dependents for opened in self.opened().values() if opened.dependents is not None]
        return [found for ask in asks for found in await ask(tx, revision_id)]

    async def in_use(self, tx: Transaction, name: str, blob_id: str) -> Sequence[Dependents]:
        """What runs in a blob, as its blob type says. Raises BlobTypeNotInstalled."""
        ask = (await self._require(tx, name)).in_use
        return await ask(tx, blob_id) if ask else []

    async def require_installed(self, tx: Transaction, name: str) -> None:
        """Raise BlobTypeNotInstalled when blobs of a type cannot be deleted here, because it alone can collect its rows."""
        await self._require(tx, name)

    async def collect(self, tx: Transaction, name: str, blob_ids: Sequence[str], rows: int) -> int:
        """Have a blob type remove so many rows of deleted blobs at most; return how many. Raises BlobTypeNotInstalled."""
        collect = (await self._require(tx, name)).collect
        return await collect(tx, blob_ids, rows) if collect is not None else 0

    async def default_moved(self, tx: Transaction, name: str, blob_id: str, revision_id: str) -> None:
        """Tell a blob type that a blob's default revision is another one now. Raises BlobTypeNotInstalled."""
        tell = (await self._require(tx, name)).on_default_moved
        if tell is not None:
            await tell(tx, blob_id, revision_id)

    async def objects_in_use(self, tx: Transaction, digests: Sequence[str]) -> set[str]:
        """Those of some objects that the rows of any type need, beside entries."""
        asks = [opened.objects_in_use for opened in self.opened().values() if opened.objects_in_use is not None]
        return {digest for ask in asks for digest in await ask(tx, digests)}

    async def uploads_open(self, tx: Transaction, upload_ids: Sequence[str]) -> set[str]:
        """Those of some uploads in parts that any type has open."""
        asks = [opened.uploads_open for opened in self.opened().values() if opened.uploads_open is not None]
        return {upload_id for ask in asks for upload_id in await ask(tx, upload_ids)}

    def operations(self) -> dict[str, Perform]:
        """The performers that the open types bring, by the kinds of operation."""
        return {kind: perform for opened in self.opened().values() for kind, perform in opened.operations.items()}

    def limits(self, name: str | None = None) -> Sequence[Limit]:
        """The limits that a blob type, or every one, brings."""
        if name is not None:
            return self._opened(name).limits
        return [limit for opened in self.opened().values() for limit in opened.limits]

    def organization_limits(self) -> Sequence[Limit]:
        """The limits that blob types bring on what an organization holds."""
        return [limit for opened in self.opened().values() for limit in opened.organization_limits]

    def _opened(self, name: str) -> Opened:
        """What a type brings; nothing for one that is no longer installed, whose blobs can still be read."""
        found = self._installed.get(name)
        return found.opened if found is not None and found.opened is not None else Opened(services=())

    async def _require(self, tx: Transaction, name: str) -> Opened:
        """What a type brings, for questions that it alone can answer.

        Raises BlobTypeNotInstalled, but not for a type that has no tables in the database: that one keeps nothing.
        """
        if name not in self._installed and await has_tables_of(tx, name):
            raise BlobTypeNotInstalled(name)
        return self._opened(name)


def _require_collect(type_: BlobType, opened: Opened) -> None:
    """Raise MissingCollect or ForbiddenReference when rows of a type are in the way of a deletion."""
    own = {table.name for table in type_.tables}
    for table in type_.tables:
        foreign = {key.target_fullname.partition(".")[0] for key in table.foreign_keys} - own
        if forbidden := foreign & {"blobs", "organizations"}:
            raise ForbiddenReference(
                f"the blob type {type_.name} has the table {table.name} with a foreign key to {min(forbidden)}; a deletion "
                "removes those rows first, so keep the id in a column without one"
            )
        if opened.collect is None and (foreign or "blob_id" in table.c):
            raise MissingCollect(
                f"the blob type {type_.name} has the table {table.name}, which refers to {min(foreign, default='blobs')}, "
                "and brings no `collect`; its rows would stay when blobs of it are deleted"
            )


def _require_offers(type_: BlobType, opened: Opened) -> None:
    """Raise BrokenOffer unless a type brings what it says it offers, and nothing else."""
    for kind in type_.offers:
        if kind not in opened.offers:
            raise BrokenOffer(f"the blob type {type_.name} says that it offers {kind.__name__}, and does not bring it")
    for kind, offered in opened.offers.items():
        if kind not in type_.offers:
            raise BrokenOffer(f"the blob type {type_.name} brings {kind.__name__}, and does not say that it offers it")
        if not isinstance(offered, kind):
            made = type(offered).__name__
            raise BrokenOffer(f"what the blob type {type_.name} offers as {kind.__name__} is none: {made}")


def _origin(point: EntryPoint) -> str:
    return _called(point.dist) if point.dist else point.value


@cache
def _called(distribution: Distribution) -> str:
    """Both are read from a file, which is parsed each time."""
    return f"{distribution.name} {distribution.version}"


def _installed(point: EntryPoint, settings: Mapping[str, Any]) -> InstalledType:
    made = _load(point)
    own = {name: value for name, value in settings.items() if name in made.settings.model_fields}
    return InstalledType(type=made, distribution=_origin(point), settings=made.settings(**own))


def _settings(every: Iterable[InstalledType]) -> Iterator[tuple[str, str]]:
    """The variables that are read, each with who reads it."""
    for name in Settings.model_fields:
        yield variable(name), "the server"
    for item in every:
        for name in item.type.settings.model_fields:
            yield variable(name), item.type.name


def _load(point: EntryPoint) -> BlobType:
    try:
        made = point.load()()
    except Exception as error:
        raise BrokenBlobType(f"the blob type {point.name} of {_origin(point)} does not load: {error}") from error
    if not isinstance(made, BlobType) or made.name != point.name:
        raise BrokenBlobType(f"the entry point {point.name} of {_origin(point)} is not a blob type of that name")
    if not NAME.fullmatch(made.name):
        raise BrokenBlobType(f"the name of the blob type {point.name} of {_origin(point)} is not {NAME_MEANS}")
    return made
