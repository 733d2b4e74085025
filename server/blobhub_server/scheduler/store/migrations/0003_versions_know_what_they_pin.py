"""Every document of a schedule knows the revision that it pins, not only the one that is armed."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

# PostgreSQL reads no document with `\u0000` in a text as JSON. In a text the quotes of this pattern would be escaped.
PINNED = {
    "sqlite": "json_extract(document, '$.invocation_target.revision_id')",
    "postgresql": """substring(document from '"revision_id":"([^"]+)"')""",
}


def upgrade() -> None:
    """Apply."""
    op.add_column("schedule_versions", sa.Column("target_revision_id", sa.String(length=36), nullable=True))
    pinned: sa.ColumnElement[str] = sa.literal_column(PINNED[op.get_bind().dialect.name])
    versions = sa.table("schedule_versions", sa.column("target_revision_id"))
    op.execute(versions.update().where(pinned != "").values(target_revision_id=pinned))
    op.create_index(
        "ix_schedule_versions_target_revision_id",
        "schedule_versions",
        ["target_revision_id", "id"],
        unique=False,
        sqlite_where=sa.text("target_revision_id IS NOT NULL"),
        postgresql_where=sa.text("target_revision_id IS NOT NULL"),
    )
    op.drop_index("ix_schedules_target_revision_id", table_name="schedules")
    op.drop_column("schedules", "target_revision_id")
