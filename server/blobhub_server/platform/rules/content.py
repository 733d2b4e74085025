"""Content: the named entries of a revision, and the digest over all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from blobhub_server.blobtypes.contract import Entry


def manifest_digest(entries: Iterable[Entry]) -> str:
    """SHA-256, in lower-case hex, of the manifest: a line `<name>\\t<digest>\\t<size>\\n` for each entry, by name.

    Names hold neither tabs nor line ends. Entry ids and times are not covered: a branch with the same content has the
    same digest.
    """
    lines = sorted(f"{entry.name}\t{entry.digest}\t{entry.size}\n" for entry in entries)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
