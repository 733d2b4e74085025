"""Write the next migration of a chain: what its tables in the code have that a migrated database has not.

`python tools/make_migration.py "what changes"`                            for the platform
`python tools/make_migration.py "what changes" blobhub.compute.workflow`   for a blob type
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import blobhub_server.app  # noqa: F401  imports every module of the platform that declares tables
import sqlalchemy as sa
from alembic import command
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.db.migrations import PLATFORM, Chain, config
from blobhub_server.db.schema import metadata


def tables_of(types: BlobTypes, name: str) -> set[str]:
    """The tables of a blob type; for the platform those that are no type's."""
    by_type = {item.type.name: {table.name for table in item.type.tables} for item in types.all()}
    return by_type[name] if name in by_type else metadata.tables.keys() - set().union(*by_type.values())


def write(connection: sa.Connection, types: BlobTypes, chain: Chain, message: str) -> None:
    """Bring a fresh database to the newest revisions, and write the difference as the next one of a chain."""
    for item in (PLATFORM, *types.chains()):
        if item.head:
            command.upgrade(config(connection, item), "head")
    made = config(connection, chain, metadata.tables.keys() - tables_of(types, chain.name))
    made.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    chain.folder.mkdir(exist_ok=True)
    command.revision(made, message, autogenerate=True, rev_id=f"{int(chain.head or 0) + 1:04}")


def main(message: str, name: str = PLATFORM.name) -> None:
    """Use a throw-away SQLite database."""
    types = BlobTypes.load()
    chains = {chain.name: chain for chain in (PLATFORM, *types.chains())}
    if name not in chains:
        sys.exit(f"{name} has no migrations; there are those of {', '.join(chains)}")
    with tempfile.TemporaryDirectory() as folder:
        engine = sa.create_engine(f"sqlite:///{Path(folder) / 'fresh.db'}")
        with engine.begin() as connection:
            write(connection, types, chains[name], message)
        engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
