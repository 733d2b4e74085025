"""The locators of schedules and firings."""

from __future__ import annotations

from dataclasses import dataclass

from blobhub_server.blobtypes.access import Caller, Place, Resolution
from blobhub_server.blobtypes.contract import Host, RevisionView
from blobhub_server.blobtypes.reference import parse_within
from blobhub_server.blobtypes.values import Entry
from blobhub_server.errors import BlobHubError, NotFound, WrongBlobType
from blobhub_server.ids import NOTHING
from blobhub_server.scheduler.errors import TYPE
from blobhub_server.scheduler.rules.firing import Firing
from blobhub_server.scheduler.store import firing as firing_store
from blobhub_server.scheduler.store import schedule as store


@dataclass(frozen=True, slots=True)
class LocatedSchedule:
    """What a reference to a schedule leads to: an entry of a revision."""

    revision: RevisionView
    entry: Entry


Found = Resolution[RevisionView] | None


async def locate_schedule(host: Host, value: str, caller: Caller) -> Resolution[LocatedSchedule] | None:
    """The locator of schedules: by id, or by alias in a revision.

    An id means the schedule in the default revision, or, where that lacks it, in the one that it was last saved in. Both
    are looked up in either case: how long it takes must not tell what there is.
    """
    reference = parse_within(value)
    if not reference.id:
        found = await host.revisions.locate(reference.revision, caller)
        return _located(found, await _entry(host, found, reference.alias), value)
    async with host.db.read() as tx:
        schedule = await store.get(tx, reference.id)
    alias = schedule.alias if schedule else NOTHING
    default = await host.revisions.locate(f"{schedule.blob_id if schedule else NOTHING}@default", caller)
    in_default = await _entry(host, default, alias)
    saved = await host.revisions.locate(schedule.saved_revision_id if schedule else NOTHING, caller)
    in_saved = await _entry(host, saved, alias)
    if in_default is None and in_saved is not None:
        return _located(saved, in_saved, value)
    return _located(default, in_default, value)


async def _entry(host: Host, found: Found, alias: str) -> Entry | None:
    """The entry of a revision that an alias names, if there are both."""
    revision = found.resource if found and isinstance(found.resource, RevisionView) else None
    async with host.db.read() as tx:
        return await host.contents.find(tx, revision.id if revision else NOTHING, alias)


def _located(found: Found, entry: Entry | None, value: str) -> Resolution[LocatedSchedule] | None:
    if found is None:
        return None
    resource = _resource(found.resource, entry, value)
    return Resolution(place=found.place, resource=resource, never_public=found.never_public)


def _resource(revision: RevisionView | BlobHubError, entry: Entry | None, value: str) -> LocatedSchedule | BlobHubError:
    """What a reference leads to in a revision, or the error for those who may see the blob."""
    if isinstance(revision, BlobHubError):
        return revision
    if revision.blob_type != TYPE:
        return WrongBlobType(revision.blob_type, TYPE)
    return NotFound("schedule", value) if entry is None else LocatedSchedule(revision=revision, entry=entry)


async def locate_firing(host: Host, value: str, caller: Caller) -> Resolution[Firing] | None:
    """The locator of firings, by id."""
    async with host.db.read() as tx:
        firing = await firing_store.get(tx, value.lower())
    if firing is None:
        return None
    place = Place(organization_id=firing.organization_id, blob_id=firing.blob_id)
    return Resolution(place=place, resource=firing, never_public=True)
