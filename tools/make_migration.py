"""Write the next migration: what the tables in the code have that a migrated database has not.

`python tools/make_migration.py "what changes"`
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import blobhub_server.app  # noqa: F401  imports every module that declares tables
import sqlalchemy as sa
from alembic import command
from blobhub_server.db.migrations import HERE, config


def write(connection: sa.Connection, message: str) -> None:
    """Bring a fresh database to the newest revision, and write the difference as the next one."""
    made = config(connection)
    versions = HERE / "versions"
    number = len(list(versions.glob("[0-9]*.py")))
    if number:
        command.upgrade(made, "head")
    made.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    command.revision(made, message, autogenerate=True, rev_id=f"{number + 1:04}")


def main(message: str) -> None:
    """Use a throw-away SQLite database."""
    with tempfile.TemporaryDirectory() as folder:
        engine = sa.create_engine(f"sqlite:///{Path(folder) / 'fresh.db'}")
        with engine.begin() as connection:
            write(connection, message)
        engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1])
