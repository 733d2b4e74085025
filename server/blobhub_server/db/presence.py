"""What is there: the one place that says when something has been deleted.

An organization is there while its row is; a blob while its own row and its organization's are. To delete one is to remove
that one row. What belongs to it is gone with that commit, and is collected afterwards, so its rows still stand in their
tables for a while. A statement that finds such rows otherwise than through their blob or organization says one of these
conditions.
"""

from __future__ import annotations

import sqlalchemy as sa

# By their names, because the tables are the platform's, and those of blob types ask too. Aliases, so that a query of the
# same tables is not mistaken for this one's.
_organizations = sa.table("organizations", sa.column("id")).alias("present_organizations")
_blobs = sa.table("blobs", sa.column("id"), sa.column("organization_id")).alias("present_blobs")
_entries = sa.table("entries", *map(sa.column, ("revision_id", "blob_id", "name", "digest"))).alias("present_entries")


def organization_is_there(organization_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """The condition that the organization of an id is there."""
    return sa.exists(sa.select(_organizations.c.id).where(_organizations.c.id == organization_id))


def blob_is_there(blob_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """The condition that the blob of an id is there."""
    own = _organizations.c.id == _blobs.c.organization_id
    return sa.exists(sa.select(_blobs.c.id).join(_organizations, own).where(_blobs.c.id == blob_id))


def content_is_there(
    blob_id: sa.ColumnElement[str],
    name: sa.ColumnElement[str],
    digest: sa.ColumnElement[str],
    *,
    other_than: sa.ColumnElement[str] | None = None,
) -> sa.ColumnElement[bool]:
    """The condition that some revision of a blob, other than one, holds bytes of a digest under a name."""
    own = [_entries.c.blob_id == blob_id, _entries.c.digest == digest, _entries.c.name == name]
    others = [] if other_than is None else [_entries.c.revision_id != other_than]
    return sa.exists(sa.select(_entries.c.name).where(*own, *others))


def place_is_there(organization_id: sa.ColumnElement[str], blob_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """The condition that a place is there: a blob; where `blob_id` is null, an organization; where both are, a user."""
    return sa.case(
        (blob_id.is_not(None), blob_is_there(blob_id)),
        (organization_id.is_not(None), organization_is_there(organization_id)),
        else_=sa.true(),
    )
