"""Migrations: Alembic, forward only, run by `blobhub-server migrate` and at every start.

A revision's id is the four digits its file name begins with, so the newest one is known without importing Alembic.
`make migration M="what changes"` writes the next file from what the tables say.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event

from blobhub_server.db.engine import Transaction
from blobhub_server.db.opening import parsed
from blobhub_server.db.schema import metadata

if TYPE_CHECKING:
    from alembic.config import Config

HERE = Path(__file__).resolve().parent
HEAD = max((path.name[:4] for path in (HERE / "versions").glob("[0-9]*.py")), default="")


async def migrate(url: str) -> None:
    """Bring a database up to date. Nothing happens when it is."""
    made = parsed(url)
    if made.get_backend_name() == "sqlite":
        Path(made.database or "").parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(made.set(drivername="sqlite"), hide_parameters=True)
        # The driver would commit before each DDL statement; so BEGIN is ours, and all of it is one transaction.
        event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
        try:
            with engine.begin() as connection:
                _bring_up(connection)
        finally:
            engine.dispose()
        return
    from blobhub_server.db.postgresql import make_engine  # noqa: PLC0415  an extra, and slow to import

    remote = make_engine(made)
    try:
        async with remote.begin() as remote_connection:
            await remote_connection.run_sync(_bring_up)
    finally:
        await remote.dispose()


def _bring_up(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        # Servers that start together migrate one after the other; the lock goes with the transaction.
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7443)"))
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    if _current(connection) != HEAD:
        _upgrade(connection)


def _current(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(_POSITION).scalar()


_PRESENT = {
    "sqlite": sa.text("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"),
    "postgresql": sa.text("SELECT 1 WHERE to_regclass('alembic_version') IS NOT NULL"),
}
_POSITION = sa.text("SELECT version_num FROM alembic_version")


async def position(tx: Transaction) -> str | None:
    """The migration that a database is at; None on an empty one."""
    if (await tx.execute(_PRESENT[tx.dialect.name])).first() is None:
        return None
    at: str | None = (await tx.execute(_POSITION)).scalar()
    return at


def config(connection: sa.Connection) -> Config:
    """Alembic's configuration for an open connection."""
    from alembic.config import Config  # noqa: PLC0415  slow to import, and not needed when up to date

    made = Config()
    made.set_main_option("script_location", str(HERE))
    made.attributes["connection"] = connection
    return made


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command  # noqa: PLC0415  slow to import, and not needed when up to date

    command.upgrade(config(connection), "head")


def differences(connection: sa.Connection) -> list[Any]:
    """What the tables in the code have that the database has not, and the other way round."""
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415  slow to import
    from alembic.migration import MigrationContext  # noqa: PLC0415  slow to import

    found: list[Any] = compare_metadata(MigrationContext.configure(connection), metadata)
    return found
