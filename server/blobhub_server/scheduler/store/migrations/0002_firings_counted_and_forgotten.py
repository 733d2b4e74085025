"""Schedules know how many firings they have, and up to which time firings may be gone."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Apply."""
    op.add_column("schedules", sa.Column("firing_count", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("schedules", sa.Column("forgotten_nominal_time", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE schedules SET firing_count = (SELECT count(*) FROM firings WHERE firings.schedule_id = schedules.id)"
        " WHERE id IN (SELECT schedule_id FROM firings)"
    )
    op.create_index("ix_schedules_firing_count", "schedules", ["firing_count", "id"], unique=False)
