"""what became of a run."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Apply. What became of runs before, nothing tells here."""
    op.add_column("note_runs", sa.Column("outcome", sa.String(length=16), nullable=False, server_default=""))
    op.add_column("note_runs", sa.Column("superseded", sa.Boolean(), nullable=False, server_default=sa.false()))
