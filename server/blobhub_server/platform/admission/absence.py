"""The answer for what a caller may not see: one, whether or not it exists."""

from __future__ import annotations

import asyncio

from blobhub_server.blobtypes.access import NOWHERE, Caller, Place, Role
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import BlobHubError, NotFound, PermissionDenied, Renamed
from blobhub_server.platform.admission.locators import Match, former_blob, named_blob, named_organization
from blobhub_server.platform.admission.roles import Roles
from blobhub_server.platform.rules import access
from blobhub_server.platform.rules import reference as grammar
from blobhub_server.platform.rules.organization import Organization
from blobhub_server.platform.rules.reference import LATEST, Reference
from blobhub_server.platform.store import revision as revision_store

LEAST_SECONDS = 0.005
"""How long after a call has come it is told, at the earliest, that a thing is absent.

To read what the caller may not see takes a fiftieth of a millisecond longer than to find nothing, which shows in the mean of
a few hundred calls. The timer of the loop is coarser than that, so the wait hides it.
"""


class Absence:
    """Finds out what to tell a caller who asked for what is absent, or what they may not see.

    It does the same for both: which statements it runs depends on the caller and on the form of the reference, not on what
    there is, and it takes as long. Otherwise the time that a refusal takes would tell the two apart.
    """

    def __init__(self, db: Database, roles: Roles) -> None:
        self._db = db
        self._roles = roles

    async def refusal(
        self, caller: Caller, kind: str, text: str, *, since: float, lister: str = ""
    ) -> tuple[BlobHubError, Place]:
        """The error for a reference that leads to nothing the caller may see, and the place of the parent that it names.

        Renamed, if that has another alias now. `since` is when the call came, by the clock of the loop. `lister` is the
        method that lists things of the kind; empty when there is none.
        """
        told = await self._find(caller, kind, text, lister)
        await asyncio.sleep(since + LEAST_SECONDS - asyncio.get_running_loop().time())
        return told

    async def _find(self, caller: Caller, kind: str, text: str, lister: str) -> tuple[BlobHubError, Place]:
        reference = grammar.parse_if_known(kind, kind, text) or grammar.named_blob(text) or Reference()
        if reference.organization == grammar.EVERYWHERE:
            return access.refusal_for(caller, PermissionDenied("the whole server is for its administrators")), NOWHERE
        former, parent = await self._surroundings(reference)
        former_seen = await self._may_see(caller, former.place if former else NOWHERE)
        place = parent.place if parent else NOWHERE
        parent_seen = await self._may_see(caller, place)
        if former is not None and former_seen:
            return Renamed(_noun(kind, reference), text, f"{former.renamed}{_below(reference, text)}"), place
        instead = ""
        if parent is not None and not reference.queue:
            instead = f"ListBlobs lists the blobs of {parent.resource.alias} that you may see"
        if lister and reference.blob and kind not in grammar.KINDS and await self._sees_blob(caller, reference):
            # Who holds a role on the blob has been told by `in_blob`; the others see it because it is public.
            instead = f"{_listed(lister, kind, text)} to those who hold a role on it"
        absent = NotFound(_noun(kind, reference), text, instead)
        return access.hidden(caller, absent, parent_readable=parent_seen), place

    async def in_blob(self, caller: Caller, place: Place, error: BlobHubError, *, lister: str = "") -> BlobHubError:
        """The error for what does not exist in a blob, or another place, that the caller may see."""
        if isinstance(error, NotFound) and error.kind == "revision" and place.blob_id:
            async with self._db.read() as tx:
                error = await absent_revision(tx, place.blob_id, error.name)
        elif isinstance(error, NotFound) and lister:
            error = NotFound(error.kind, error.name, _listed(lister, error.kind, error.name))
        return access.refusal_for(caller, error)

    async def _sees_blob(self, caller: Caller, reference: Reference) -> bool:
        """Whether a caller may see the blob that a reference names by its alias of today."""
        async with self._db.read() as tx:
            blob = await named_blob(tx, reference)
        return await self._may_see(caller, blob.place if blob else NOWHERE) and blob is not None

    async def _surroundings(self, reference: Reference) -> tuple[Match[object] | None, Match[Organization] | None]:
        """What a reference names by a former alias, and the organization that it names as the parent."""
        async with self._db.read() as tx:
            if not reference.organization:
                return None, None
            named = await named_organization(tx, reference)
            if reference.blob:
                return await former_blob(tx, reference, named), named
            renamed = named if named is not None and named.renamed else None
            return renamed, named if reference.queue else None

    async def _may_see(self, caller: Caller, place: Place) -> bool:
        """Whether a caller may see a place. The server, which is nowhere, is for its administrators."""
        role = await self._roles.held_role(caller, place)
        return not access.is_hidden(role, public=place.public, seen_by=Role.READ)


async def absent_revision(tx: Transaction, blob_id: str, reference: str) -> NotFound:
    """The error for a revision that a blob does not have, in words that say what it has instead."""
    last = await revision_store.next_number(tx, blob_id) - 1
    instead = f"the last snapshot is @{last}" if last else "there is no snapshot yet"
    if reference.endswith(f"@{LATEST}"):
        instead = "there is no commit or snapshot yet"
    return NotFound("revision", reference, instead)


def _listed(lister: str, kind: str, text: str) -> str:
    """What lists the things of a kind that there are in the revision that a reference names, as in `acme/pipeline@3/x`."""
    return f"{lister} lists the {kind.replace('_', ' ')}s of {text.rpartition('/')[0]}"


def _below(reference: Reference, text: str) -> str:
    """What a reference says below its blob, as in `@3`, or a queue's below its organization."""
    if reference.queue:
        return f"/{reference.queue}"
    below = reference.version or text.partition("@")[2]
    return f"@{below}" if below else ""


def _noun(kind: str, reference: Reference) -> str:
    """What a reference names, for people."""
    if kind not in grammar.KINDS:
        return kind.replace("_", " ")
    if reference.blob:
        return "blob"
    if reference.queue:
        return "queue"
    if reference.organization:
        return "organization"
    return "user" if reference.user else kind.replace("_", " ")
