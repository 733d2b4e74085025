"""Alembic's entry: runs the migrations on the connection it is handed."""

from alembic import context

from blobhub_server.db.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=False
)
with context.begin_transaction():
    context.run_migrations()
