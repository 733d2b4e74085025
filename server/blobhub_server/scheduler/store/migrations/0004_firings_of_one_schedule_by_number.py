"""Firings of one schedule are found by their numbers; lists go by those, too, so two indexes are not needed any more."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Apply."""
    op.create_index("ix_firings_schedule_id_sequence", "firings", ["schedule_id", "sequence"], unique=False)
    op.create_index(
        "ix_firings_schedule_id_end_sequence",
        "firings",
        ["schedule_id", "end_sequence"],
        unique=False,
        sqlite_where=sa.text("end_sequence IS NOT NULL"),
        postgresql_where=sa.text("end_sequence IS NOT NULL"),
    )
    op.drop_index("ix_firings_schedule_id", table_name="firings")
    op.drop_index("ix_firings_blob_id", table_name="firings")
    op.drop_index("ix_firings_execution_id", table_name="firings")
