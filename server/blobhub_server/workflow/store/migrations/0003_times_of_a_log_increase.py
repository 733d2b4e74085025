"""The times of a session's log increase: the last one stands in the session's row."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Apply."""
    op.add_column("sessions", sa.Column("last_event_time", sa.BigInteger(), server_default="0", nullable=False))
