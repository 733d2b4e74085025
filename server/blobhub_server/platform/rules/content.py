"""Content: the named entries of a revision, and the digest over all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from blobhub_server.blobtypes.values import Entry


def manifest_digest(entries: Iterable[Entry]) -> str:
    """SHA-256, in lower-case hex, of the manifest: a line `<name>\\t<digest>\\t<size>\\n` for each entry, by name.

    Names hold neither tabs nor line ends. Entry ids and times are not covered: a branch with the same content has the
    same digest.
    """
    lines = sorted(f"{entry.name}\t{entry.digest}\t{entry.size}\n" for entry in entries)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Change:
    """A difference between two revisions: `before` is None for an added entry, `after` for a removed one."""

    name: str
    before: Entry | None
    after: Entry | None


def changes(base: Sequence[Entry], newer: Sequence[Entry]) -> Iterator[Change]:
    """The differences, by name. Entries with the same bytes do not differ, whatever their ids."""
    old, new = ({entry.name: entry for entry in entries} for entries in (base, newer))
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before is None or after is None or before.digest != after.digest:
            yield Change(name=name, before=before, after=after)
