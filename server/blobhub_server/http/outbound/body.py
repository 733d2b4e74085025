"""Bodies of answers: bounded as they come, and decompressed."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Mapping

from blobhub_server.http.outbound.message import BadResponse, TooLarge

ACCEPTED = "gzip, deflate"
_WINDOWS: Mapping[str, int] = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""What zlib is told for each encoding that was asked for."""


async def decoded(raw: AsyncIterator[bytes], encoding: str, max_bytes: int) -> AsyncIterator[bytes]:
    """The chunks of a body in the encoding that its header says.

    Raises TooLarge when there are more than `max_bytes`, before or after decompression; BadResponse.
    """
    inflater = _inflater(encoding)
    came, left = 0, max_bytes
    async for chunk in raw:
        came += len(chunk)
        data = chunk if inflater is None else _inflate(inflater, chunk, left)
        left -= len(data)
        if came > max_bytes or left < 0:
            raise TooLarge(f"the answer is longer than {max_bytes} bytes")
        if data:
            yield data
    if inflater is not None and came and not inflater.eof:
        raise BadResponse("the answer's compressed body is cut off")


def _inflater(encoding: str) -> zlib._Decompress | None:
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding not in _WINDOWS:
        raise BadResponse("the answer is compressed in a way that was not asked for")
    return zlib.decompressobj(_WINDOWS[encoding])


def _inflate(inflater: zlib._Decompress, chunk: bytes, room: int) -> bytes:
    """What a chunk is, one byte more than there is room for at most: so a bomb takes no more memory than its bound."""
    try:
        return inflater.decompress(chunk, room + 1)
    except zlib.error:
        raise BadResponse("the answer's compressed body is broken") from None
