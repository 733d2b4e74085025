"""A model in an archive: `model.tar.gz` with one member `model.onnx`, unpacked while it arrives.

Python's `tarfile` reads the extended headers of a stream into memory, as large as they say they are. So only single headers
are left to it, and their sizes are looked at first.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from enum import Enum, auto

from blobhub_server.onnx.refusal import ModelRefused, RefusalReason, quoted

MEMBER = "model.onnx"
PIECE_BYTES = 64 << 10
"""How much is unpacked at once."""
MAX_EXTENDED_BYTES = 64 << 10
"""Of the extended headers before the member; those of a time with fractions have 40."""
MAX_PADDING_BYTES = 1 << 20
"""Of zeros after the member; tar fills its last record of 10 KiB, unless it is told another size."""

_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE)
_HARMLESS_KEYS = ("mtime", "atime", "ctime", "uname", "gname", "uid", "gid", "comment")


class _Place(Enum):
    HEADER = auto()
    EXTENDED = auto()
    MODEL = auto()
    PADDING = auto()


class ArchiveReader:
    """Takes the bytes of an archive in any pieces, and gives those of the model, in constant memory.

    Everything that is refused is refused as soon as it is seen, by ModelRefused: bombs at the size that they declare, or
    where they exceed it.
    """

    def __init__(self, max_model_bytes: int) -> None:
        self._max_model_bytes = max_model_bytes
        self._gzip = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self._place = _Place.HEADER
        self._unread = bytearray()
        self._left = 0
        """Of the model, of the extended header with what fills its last block, or of the padding that is allowed."""
        self._extended_bytes = 0
        self._extended_size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bytes of the model that come of these bytes of the archive. They are taken in as they are asked for."""
        piece = bytes(PIECE_BYTES)
        # All input may be taken in while output is left, which is told by a full piece.
        while data or len(piece) == PIECE_BYTES:
            if self._gzip.eof:
                if data:
                    raise _refused("there are bytes after its end")
                return
            try:
                piece = self._gzip.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise _refused("it is not compressed by gzip, or is damaged") from error
            data = self._gzip.unconsumed_tail or self._gzip.unused_data
            yield from self._take(piece)

    def close(self) -> None:
        """Say that there are no more bytes; refuse an archive that ends before its end."""
        if self._place is not _Place.PADDING or not self._gzip.eof:
            raise _refused("it is truncated")

    def _take(self, piece: bytes) -> Iterator[bytes]:
        self._unread += piece
        while self._unread:
            if self._place is _Place.MODEL:
                yield self._take_model()
            elif self._place is _Place.PADDING:
                self._take_padding()
            elif not self._take_header():
                return

    def _take_model(self) -> bytes:
        part = bytes(self._unread[: self._left])
        self._left -= len(part)
        del self._unread[: len(part)]
        if not self._left:
            self._place, self._left = _Place.PADDING, MAX_PADDING_BYTES
        return part

    def _take_padding(self) -> None:
        if any(self._unread):
            raise _refused(f"it has more than the member {MEMBER!r}")
        self._left -= len(self._unread)
        self._unread.clear()
        if self._left < 0:
            raise _refused(f"more than {MAX_PADDING_BYTES} bytes come after the member {MEMBER!r}")

    def _take_header(self) -> bool:
        """Take a header, or an extended one, of what is there; whether it was there as a whole."""
        size = self._left if self._place is _Place.EXTENDED else tarfile.BLOCKSIZE
        if len(self._unread) < size:
            return False
        block = bytes(self._unread[:size])
        del self._unread[:size]
        if self._place is _Place.EXTENDED:
            _check_extended(block[: self._extended_size])
            self._place = _Place.HEADER
        else:
            self._begin_member(block)
        return True

    def _begin_member(self, block: bytes) -> None:
        if not any(block):
            raise _refused(f"it has no member {MEMBER!r}")
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise _refused("it is no tar archive, or is damaged") from error
        if member.type in _EXTENDED:
            self._begin_extended(member.size)
            return
        if member.name != MEMBER:
            raise _refused(f"it has a member {quoted(member.name)}")
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise _refused(f"its member {MEMBER!r} is no regular file")
        if not 0 <= member.size <= self._max_model_bytes:
            message = f"the model in the archive has {member.size} bytes; at most {self._max_model_bytes} are allowed"
            raise ModelRefused(RefusalReason.TOO_LARGE, message)
        if not member.size:
            raise _refused(f"its member {MEMBER!r} is empty")
        self._place, self._left = _Place.MODEL, member.size

    def _begin_extended(self, size: int) -> None:
        self._extended_bytes += size
        if size <= 0 or self._extended_bytes > MAX_EXTENDED_BYTES:
            raise _refused("its extended headers are damaged or too large")
        self._extended_size = size
        self._place, self._left = _Place.EXTENDED, -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _check_extended(header: bytes) -> None:
    """Refuse an extended header that says more of a member than its times and owners: another name, size or kind.

    Each of its records is `length key=value` and a line feed, where the length is that of the record.
    """
    while header:
        digits, space, _ = header[:20].partition(b" ")
        length = int(digits) if digits.isdigit() and space else 0
        key = header[len(digits) + 1 : length].partition(b"=")[0].decode(errors="replace")
        if not 0 < length <= len(header) or key not in _HARMLESS_KEYS:
            raise _refused(f"an extended header sets {quoted(key)}")
        header = header[length:]


def _refused(what: str) -> ModelRefused:
    return ModelRefused(
        RefusalReason.ARCHIVE, f"the archive has to be a gzipped tar with exactly one file {MEMBER!r}: {what}"
    )
