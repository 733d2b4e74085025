"""The domain of a refusal's reason, in the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Apply. Of which domain the reasons are that are there, nothing tells."""
    op.add_column("audit_entries", sa.Column("domain", sa.String(length=64), nullable=False, server_default=""))
