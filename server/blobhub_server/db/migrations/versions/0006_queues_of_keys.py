"""Keys of workers name the queues that they are for."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Apply."""
    op.add_column("api_keys", sa.Column("queues", sa.Text(), nullable=False, server_default="[]"))
