"""Lists of blobs over all organizations, as a caller sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from blobhub_server.blobtypes.access import Caller


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedBlob:
    """A blob in a list, with what its default revision is for the caller.

    `key` is what the next page begins after. `reference` names the blob, such as `acme/scorer`. `entries` is how many the
    default revision's content has; None when the caller is shown no revision of the blob. `number` is that of its snapshot.
    """

    key: str
    reference: str
    entries: int | None
    number: int | None


class Blobs(Protocol):
    """Lists blobs."""

    async def visible_to(
        self, caller: Caller, type_: str, *, organization: str, after: str, limit: int
    ) -> Sequence[ListedBlob]:
        """The blobs of a type that a caller may read, by the creation of their organizations, and then by their own.

        `organization` is the alias or id of the one to list; empty for all. One that does not exist holds nothing. At most
        `limit` blobs, those after a key. Raises InvalidReference; InvalidPageToken for what is no key; Overloaded.
        """
