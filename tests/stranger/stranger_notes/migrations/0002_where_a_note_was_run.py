"""where a note was run."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Apply. The organization is that of the blob; of which revision a note was run before, nothing tells."""
    op.add_column("note_runs", sa.Column("organization_id", sa.String(length=36), nullable=False, server_default=""))
    op.add_column("note_runs", sa.Column("revision_id", sa.String(length=36), nullable=True))
    op.create_index("ix_note_runs_revision_id", "note_runs", ["revision_id"], unique=False)
    op.execute(
        "UPDATE note_runs SET organization_id = (SELECT organization_id FROM blobs WHERE blobs.id = note_runs.blob_id)"
    )
