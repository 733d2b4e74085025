"""tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "firing_logs",
        sa.Column("blob_id", sa.String(length=36), nullable=False),
        sa.Column("first_sequence", sa.BigInteger(), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("blob_id", name=op.f("pk_firing_logs")),
    )
    op.create_table(
        "schedules",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("organization_id", sa.String(length=36), nullable=False),
        sa.Column("blob_id", sa.String(length=36), nullable=False),
        sa.Column(
            "alias", sa.String(length=63).with_variant(sa.String(length=63, collation="C"), "postgresql"), nullable=False
        ),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("paused_by", sa.String(length=36), nullable=True),
        sa.Column("pause_note", sa.String(length=256), nullable=False),
        sa.Column("pause_time", sa.BigInteger(), nullable=True),
        sa.Column("version_id", sa.String(length=36), nullable=True),
        sa.Column("repeat", sa.String(length=16), nullable=True),
        sa.Column("target_revision_id", sa.String(length=36), nullable=True),
        sa.Column("saved_revision_id", sa.String(length=36), nullable=False),
        sa.Column("next_nominal_time", sa.BigInteger(), nullable=True),
        sa.Column("next_due_time", sa.BigInteger(), nullable=True),
        sa.Column("last_nominal_time", sa.BigInteger(), nullable=True),
        sa.Column("tzdata", sa.String(length=16), nullable=False),
        sa.Column("reckon_time", sa.BigInteger(), nullable=True),
        sa.Column("running_firing_id", sa.String(length=36), nullable=True),
        sa.Column("queued_kind", sa.String(length=16), nullable=True),
        sa.Column("queued_nominal_time", sa.BigInteger(), nullable=True),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
        sa.UniqueConstraint("blob_id", "alias", name=op.f("uq_schedules_blob_id_alias")),
    )
    op.create_index(
        "ix_schedules_armed",
        "schedules",
        ["blob_id", "id"],
        unique=False,
        sqlite_where=sa.text("version_id IS NOT NULL"),
        postgresql_where=sa.text("version_id IS NOT NULL"),
    )
    op.create_index(
        "ix_schedules_queued",
        "schedules",
        ["id"],
        unique=False,
        sqlite_where=sa.text("queued_nominal_time IS NOT NULL"),
        postgresql_where=sa.text("queued_nominal_time IS NOT NULL"),
    )
    op.create_index(
        "ix_schedules_due",
        "schedules",
        ["next_due_time", "id"],
        unique=False,
        sqlite_where=sa.text("next_due_time IS NOT NULL"),
        postgresql_where=sa.text("next_due_time IS NOT NULL"),
    )
    op.create_index(
        "ix_schedules_reckon_time",
        "schedules",
        ["reckon_time", "id"],
        unique=False,
        sqlite_where=sa.text("repeat = 'recurring_cron'"),
        postgresql_where=sa.text("repeat = 'recurring_cron'"),
    )
    op.create_index(
        "ix_schedules_target_revision_id",
        "schedules",
        ["target_revision_id", "id"],
        unique=False,
        sqlite_where=sa.text("target_revision_id IS NOT NULL"),
        postgresql_where=sa.text("target_revision_id IS NOT NULL"),
    )
    op.create_index(
        "ix_schedules_tzdata",
        "schedules",
        ["tzdata", "id"],
        unique=False,
        sqlite_where=sa.text("next_due_time IS NOT NULL"),
        postgresql_where=sa.text("next_due_time IS NOT NULL"),
    )
    op.create_index(
        "ix_schedules_upcoming",
        "schedules",
        ["blob_id", "next_nominal_time", "id"],
        unique=False,
        sqlite_where=sa.text("next_due_time IS NOT NULL"),
        postgresql_where=sa.text("next_due_time IS NOT NULL"),
    )
    op.create_table(
        "firings",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("organization_id", sa.String(length=36), nullable=False),
        sa.Column("blob_id", sa.String(length=36), nullable=False),
        sa.Column("schedule_id", sa.String(length=36), nullable=False),
        sa.Column("schedule_alias", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("nominal_time", sa.BigInteger(), nullable=False),
        sa.Column("due_time", sa.BigInteger(), nullable=False),
        sa.Column("fire_time", sa.BigInteger(), nullable=False),
        sa.Column("tzdata", sa.String(length=16), nullable=False),
        sa.Column("schedule_digest", sa.String(length=64), nullable=False),
        sa.Column("actor_id", sa.String(length=36), nullable=False),
        sa.Column("revision", sa.String(length=192), nullable=False),
        sa.Column("session", sa.String(length=63), nullable=False),
        sa.Column("definition", sa.String(length=63), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("execution_id", sa.String(length=36), nullable=True),
        sa.Column("session_id", sa.String(length=36), nullable=True),
        sa.Column("execution_state", sa.String(length=16), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("end_sequence", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["schedule_id"], ["schedules.id"], name=op.f("fk_firings_schedule_id_schedules")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_firings")),
        sa.UniqueConstraint("blob_id", "sequence", name=op.f("uq_firings_blob_id_sequence")),
        sa.UniqueConstraint("schedule_id", "kind", "nominal_time", name=op.f("uq_firings_schedule_id_kind_nominal_time")),
    )
    op.create_index("ix_firings_blob_id", "firings", ["blob_id", "id"], unique=False)
    op.create_index(
        "ix_firings_execution_id",
        "firings",
        ["execution_id"],
        unique=False,
        sqlite_where=sa.text("execution_id IS NOT NULL"),
        postgresql_where=sa.text("execution_id IS NOT NULL"),
    )
    op.create_index("ix_firings_schedule_id", "firings", ["schedule_id", "id"], unique=False)
    op.create_index(
        "uq_firings_end_sequence",
        "firings",
        ["blob_id", "end_sequence"],
        unique=True,
        sqlite_where=sa.text("end_sequence IS NOT NULL"),
        postgresql_where=sa.text("end_sequence IS NOT NULL"),
    )
    op.create_table(
        "schedule_versions",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("schedule_id", sa.String(length=36), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.String(length=36), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["schedule_id"], ["schedules.id"], name=op.f("fk_schedule_versions_schedule_id_schedules")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule_versions")),
        sa.UniqueConstraint("schedule_id", "digest", name=op.f("uq_schedule_versions_schedule_id_digest")),
    )
