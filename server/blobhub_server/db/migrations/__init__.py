"""Migrations: Alembic, forward only, run by `blobhub-server migrate` and at every start.

They come in chains: the platform's, and one of each blob type that has tables. A chain is a folder of revisions and a table
in the database that says how far it has come. The platform's chain is run first, so that what types keep can refer to it.

A revision's id is the four digits its file name begins with, so the newest one is known without importing Alembic.
`make migration M="what changes"` writes the next file from what the tables say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event

from blobhub_server.db.engine import Transaction
from blobhub_server.db.opening import open_database, parse_url
from blobhub_server.db.schema import metadata
from blobhub_server.db.sqlite_error import raise_translated
from blobhub_server.start import StartError

if TYPE_CHECKING:
    from alembic.config import Config

HERE = Path(__file__).resolve().parent
VERSION_TABLE = "alembic_version"


class NewerDatabase(StartError):
    """The database was migrated by a newer program."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of migrations: whose it is, the folder its revisions are in, and the table that says how far it has come."""

    name: str
    folder: Path
    version_table: str

    @classmethod
    def for_type(cls, name: str, folder: Path) -> Chain:
        """The chain of a blob type."""
        return cls(name=name, folder=folder, version_table=_version_table(name))

    @property
    def head(self) -> str:
        """The newest revision; empty when there is none."""
        return max(self._revisions(), default="")

    def require_known(self, at: str) -> None:
        """Raise NewerDatabase when a database is at a revision that is not in the folder."""
        if at and at not in self._revisions():
            raise NewerDatabase(
                f"{self.name} is at migration {at}, made by a newer program; this one knows {self.head or 'none'}. "
                "Run the newer one"
            )

    def _revisions(self) -> set[str]:
        return {path.name[:4] for path in self.folder.glob("[0-9]*.py")}


def _version_table(type_name: str) -> str:
    return f"{VERSION_TABLE}_{type_name.replace('.', '_')}"


PLATFORM = Chain(name="platform", folder=HERE / "versions", version_table=VERSION_TABLE)


async def migrate_alone(url: str, type_chains: Sequence[Chain]) -> None:
    """Bring a database up to date that no server of this process has open. Raises StartError, as `migrate` does.

    A SQLite file is locked meanwhile, as a server locks it, so no server and no other migration works on it.
    """
    db = await open_database(url)
    try:
        await migrate(url, type_chains)
    finally:
        await db.close()


async def migrate(url: str, type_chains: Sequence[Chain]) -> None:
    """Bring a database up to date: first the platform's tables, then those of the types. Does nothing when it is.

    Whoever calls this has the database open. Raises StartError for a URL of no such database, NewerDatabase when it is at a
    migration that this program does not have, StorageUnavailable, OSError and DBAPIError when it cannot be reached or a
    statement fails.
    """
    made, bring_up = parse_url(url), partial(_bring_up, chains=(PLATFORM, *type_chains))
    if made.get_backend_name() == "sqlite":
        Path(made.database or "").parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(made.set(drivername="sqlite"), hide_parameters=True)
        # The driver would commit before each DDL statement. With BEGIN of our own, all of it is one transaction.
        event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
        try:
            with engine.begin() as connection:
                bring_up(connection)
        except sa.exc.DBAPIError as error:
            raise_translated(error)
        finally:
            engine.dispose()
        return
    from blobhub_server.db.postgresql import make_engine  # noqa: PLC0415  an extra, and slow to import

    remote = make_engine(made)
    try:
        async with remote.begin() as remote_connection:
            await remote_connection.run_sync(bring_up)
    finally:
        await remote.dispose()


def _bring_up(connection: sa.Connection, chains: Sequence[Chain]) -> None:
    if connection.dialect.name == "postgresql":
        # Servers that start together migrate one after the other; the lock ends with the transaction.
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7443)"))
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    for chain in chains:
        at = _current(connection, chain)
        chain.require_known(at)
        if at != chain.head:
            _upgrade(connection, chain)


def _current(connection: sa.Connection, chain: Chain) -> str:
    if not sa.inspect(connection).has_table(chain.version_table):
        return ""
    return connection.execute(_position(chain)).scalar() or ""


def _position(chain: Chain) -> sa.Select[str]:
    number: sa.ColumnClause[str] = sa.column("version_num")
    return sa.select(number).select_from(sa.table(chain.version_table, number))


_TABLE_EXISTS = {
    "sqlite": sa.text("SELECT 1 FROM sqlite_master WHERE name = :name"),
    "postgresql": sa.text("SELECT 1 WHERE to_regclass(:name) IS NOT NULL"),
}


async def position(tx: Transaction, chain: Chain = PLATFORM) -> str:
    """The migration of a chain that a database is at; empty where it has none."""
    if not await _has_table(tx, chain.version_table):
        return ""
    return (await tx.execute(_position(chain))).scalar() or ""


async def has_tables_of(tx: Transaction, type_name: str) -> bool:
    """True when a blob type has made tables in a database, whether or not it is installed now."""
    return await _has_table(tx, _version_table(type_name))


async def _has_table(tx: Transaction, name: str) -> bool:
    return (await tx.execute(_TABLE_EXISTS[tx.dialect.name], {"name": name})).first() is not None


def config(connection: sa.Connection, chain: Chain, others: Collection[str] = ()) -> Config:
    """Alembic's configuration for a chain on an open connection; `others` are tables that a new revision leaves alone."""
    from alembic.config import Config  # noqa: PLC0415  slow to import, and not needed when up to date

    made = Config()
    made.set_main_option("script_location", str(HERE))
    made.set_main_option("path_separator", "newline")
    made.set_main_option("version_locations", str(chain.folder))
    made.attributes |= {
        "connection": connection,
        "version_table": chain.version_table,
        "include_object": _exclude(others),
    }
    return made


def _upgrade(connection: sa.Connection, chain: Chain) -> None:
    from alembic import command  # noqa: PLC0415  slow to import, and not needed when up to date

    command.upgrade(config(connection, chain), "head")


def _exclude(others: Collection[str]) -> Callable[..., bool]:
    """Alembic's filter for the tables it compares: all but `others`, and but the version tables."""

    def include(_item: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
        return kind != "table" or not (name in others or (name or "").startswith(VERSION_TABLE))

    return include


def differences(connection: sa.Connection) -> list[Any]:
    """What the tables in the code have that the database has not, and the other way round."""
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415  slow to import
    from alembic.migration import MigrationContext  # noqa: PLC0415  slow to import

    context = MigrationContext.configure(connection, opts={"include_object": _exclude(())})
    found: list[Any] = compare_metadata(context, metadata)
    return found
