"""Alembic's entry: runs the migrations on the connection it is handed."""

from typing import Any, Literal

from alembic import context
from sqlalchemy.types import TypeDecorator

from blobhub_server.db.schema import metadata


def render(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Write our own types as what they are in the database, so that a migration never changes with the code."""
    return f"sa.{item.impl!r}" if kind == "type" and isinstance(item, TypeDecorator) else False


given = context.config.attributes
context.configure(
    connection=given["connection"],
    version_table=given["version_table"],
    include_object=given["include_object"],
    target_metadata=metadata,
    render_item=render,
)
with context.begin_transaction():
    context.run_migrations()
