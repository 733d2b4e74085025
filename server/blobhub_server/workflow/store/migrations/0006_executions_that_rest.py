"""Executions say until when they rest."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_RUNNING = sa.text("state NOT IN ('completed', 'failed', 'stopped')")


def upgrade() -> None:
    """Apply."""
    op.add_column("executions", sa.Column("wake_time", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("executions", sa.Column("rest_time", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("executions", sa.Column("adopted", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.drop_index("ix_executions_owner", table_name="executions")
    op.create_index(
        "ix_executions_owner",
        "executions",
        ["owner", "wake_time", "id"],
        unique=False,
        sqlite_where=_RUNNING,
        postgresql_where=_RUNNING,
    )
