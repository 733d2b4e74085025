"""${message}."""

import sqlalchemy as sa
from alembic import op

from blobhub_server.db.schema import Time
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Apply."""
    ${upgrades if upgrades else "pass"}
