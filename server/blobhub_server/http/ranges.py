"""Which bytes of an object a request asks for, as RFC 9110 has it (§13 conditions, §14 ranges)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=[ \t]*(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))[ \t]*", re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?"[^"]*"')


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes to answer: `status` is 200 for all of them, 206 for a range, and 304, 412 or 416 for none."""

    status: int
    offset: int = 0
    length: int = 0

    def content_range(self, size: int) -> str | None:
        """The header of that name."""
        if self.status == 206:
            return f"bytes {self.offset}-{self.offset + self.length - 1}/{size}"
        return f"bytes */{size}" if self.status == 416 else None


def choose(headers: Mapping[str, str], etag: str, size: int) -> Part:
    """The part of an object of a size that the headers of a GET ask for. `etag` has quotes, and is a strong one.

    Several ranges at once, other units than bytes and what follows no grammar are answered with the whole, as a server may.
    """
    if "if-match" in headers and not _names(headers["if-match"], etag, weak=False):
        return Part(status=412)
    if "if-none-match" in headers and _names(headers["if-none-match"], etag, weak=True):
        return Part(status=304)
    return _range(headers, etag, size) or Part(status=200, length=size)


def _range(headers: Mapping[str, str], etag: str, size: int) -> Part | None:
    """The range that is asked for; None where all is."""
    found = _RANGE.fullmatch(headers.get("range", ""))
    if found is None or headers.get("if-range", etag).strip() != etag:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        length = min(int(suffix), size)
        return Part(status=206, offset=size - length, length=length) if length else Part(status=416)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        return Part(status=416)
    end = min(int(last) + 1, size) if last else size
    return Part(status=206, offset=int(first), length=end - int(first))


def _names(header: str, etag: str, *, weak: bool) -> bool:
    """Whether a list of entity tags has one, or is `*`."""
    if header.strip() == "*":
        return True
    tags = _TAG.findall(header)
    return etag in ([tag.removeprefix("W/") for tag in tags] if weak else tags)
