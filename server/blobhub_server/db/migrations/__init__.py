"""Migrations: Alembic, forward only, run by `blobhub-server migrate` and at every start.

A revision's id is the four digits its file name begins with, so the newest one is known without importing Alembic.
`make migration M="what changes"` writes the next file from what the tables say.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from blobhub_server.db.engine import normalised
from blobhub_server.db.schema import metadata

if TYPE_CHECKING:
    from alembic.config import Config

HERE = Path(__file__).resolve().parent
HEAD = max((path.name[:4] for path in (HERE / "versions").glob("[0-9]*.py")), default="")


async def migrate(url: str) -> None:
    """Bring a database up to date. Nothing happens when it is."""
    engine = create_async_engine(normalised(url))
    try:
        async with engine.connect() as connection:
            if await connection.run_sync(_current) == HEAD:
                return
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


def _current(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


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
