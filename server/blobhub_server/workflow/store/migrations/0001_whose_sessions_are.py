"""Whose sessions are: the organization stands in the session's row."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Apply."""
    op.add_column("sessions", sa.Column("org_id", sa.String(length=36), nullable=False, server_default=""))
    op.execute("UPDATE sessions SET org_id = (SELECT org_id FROM blobs WHERE blobs.id = sessions.blob_id)")
