"""Uploads of models in parts: how a file is cut, and what is a whole one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from blobhub_server.errors import InvalidValue, Violation
from blobhub_server.onnx.errors import PartsMismatch, UploadNotOpen

MAX_PARTS = 10_000
DEFAULT_PART_BYTES = 8 << 20
_MIB = 1 << 20
_MAX_NAMED = 100
"""How many wrong parts an error names."""


class UploadForm(StrEnum):
    """What the file is."""

    ONNX = "onnx"
    TAR_GZ = "tar_gz"


class UploadState(StrEnum):
    """Where an upload is; the last four are final."""

    OPEN = "open"
    COMPLETING = "completing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(slots=True)
class Upload:
    """An upload. `sha256` is the SHA-256 that was announced, in hex, and `crc32c` the CRC32C; None where none was.

    `parts_digest` tells which parts it was completed with. `object_digest` is the object that they were put together to,
    once they are.
    """

    id: str
    organization_id: str
    blob_id: str
    revision_id: str
    actor_id: str
    form: UploadForm
    size: int
    part_size: int
    sha256: str | None
    crc32c: int | None
    state: UploadState
    parts_digest: str | None
    operation_id: str | None
    object_digest: str | None
    create_time: datetime
    expire_time: datetime
    end_time: datetime | None

    @property
    def part_count(self) -> int:
        """How many parts it has."""
        return count_parts(self.size, self.part_size)

    def size_of(self, number: int) -> int:
        """The size of a part in bytes. Raises InvalidValue when it has no such part."""
        if not 1 <= number <= self.part_count:
            raise InvalidValue("numbers", f"the upload has parts 1 to {self.part_count}, not {number}")
        return min(self.part_size, self.size - (number - 1) * self.part_size)

    def is_open(self, now: datetime) -> bool:
        """Whether it takes parts, and can be completed."""
        return self.state is UploadState.OPEN and now < self.expire_time

    def require_open(self, now: datetime) -> None:
        """Raise UploadNotOpen when it takes no parts any more."""
        if not self.is_open(now):
            raise UploadNotOpen(self.state_at(now), self.operation_id or "")

    def state_at(self, now: datetime) -> UploadState:
        """Its state: one that has expired may not be marked yet."""
        return UploadState.EXPIRED if self.state is UploadState.OPEN and now >= self.expire_time else self.state


@dataclass(frozen=True, slots=True, kw_only=True)
class SentPart:
    """A part as its sender knows it, or as it has come: its number, its ETag without quotes and, if known, its size."""

    number: int
    etag: str
    size: int | None = None


def count_parts(size: int, part_size: int) -> int:
    """How many parts a file has."""
    return -(-size // part_size)


def choose_part_size(size: int, wanted: int) -> int:
    """The size of parts of a file, all in bytes: the one that is wanted, or, for 0, one that suits. Raises InvalidValue."""
    if not wanted:
        least = count_parts(size, MAX_PARTS)
        return max(DEFAULT_PART_BYTES, count_parts(least, _MIB) * _MIB)
    if (count := count_parts(size, wanted)) > MAX_PARTS:
        least = count_parts(size, MAX_PARTS)
        raise InvalidValue("part_size", f"there would be {count} parts, and {MAX_PARTS} are allowed; at least {least} bytes")
    return wanted


def require_all(upload: Upload, sent: Sequence[SentPart]) -> None:
    """Raise InvalidValue unless some parts are all of an upload, each once and in order."""
    numbers = [part.number for part in sent]
    if numbers != [*range(1, upload.part_count + 1)]:
        wrong = next((n for n, number in enumerate(numbers, start=1) if n != number), len(numbers) + 1)
        raise InvalidValue(
            "parts", f"has to name the parts 1 to {upload.part_count}, in order; part {wrong} is not in its place"
        )


def require_stored(upload: Upload, sent: Sequence[SentPart], stored: Sequence[SentPart]) -> None:
    """Raise PartsMismatch unless all that was sent has come as it was sent, and in the right size."""
    found = {part.number: part for part in stored}
    wrong = [
        Violation(f"parts[{part.number - 1}]", told)
        for part in sent
        if (told := _wrong(upload, part, found.get(part.number)))
    ]
    if wrong:
        raise PartsMismatch(len(wrong), wrong[:_MAX_NAMED])


def digest_of_parts(parts: Sequence[SentPart]) -> str:
    """What tells one list of parts from another: a digest over their numbers and ETags."""
    return hashlib.sha256("".join(f"{part.number} {part.etag}\n" for part in parts).encode()).hexdigest()


def _wrong(upload: Upload, sent: SentPart, stored: SentPart | None) -> str:
    """What is wrong with a part; nothing for one that is right."""
    if stored is None:
        return f"part {sent.number} has not come"
    if stored.etag != sent.etag:
        return f"part {sent.number} has come with the ETag {stored.etag}"
    if stored.size != upload.size_of(sent.number):
        return f"part {sent.number} has {stored.size} bytes, not {upload.size_of(sent.number)}"
    return ""
