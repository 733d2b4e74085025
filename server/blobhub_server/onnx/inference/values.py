"""The items of tensors as numbers and texts, and as bytes end to end."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from blobhub_server.onnx.inference.tensor import BYTES, ITEM_BYTES, pack_items, unpack_items

_FORMATS = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
"""What `struct` calls them. It has no name for BF16, which is the upper half of FP32."""

Items = Sequence[bool] | Sequence[int] | Sequence[float] | Sequence[bytes]


class ItemOutOfRange(Exception):
    """An item is none of its datatype."""


def pack(datatype: str, items: Items) -> bytes:
    """The bytes of items of a datatype that can be sent. Raises ItemOutOfRange."""
    if datatype == BYTES:
        return pack_items(items)  # type: ignore[arg-type]
    try:
        if datatype == "BF16":
            return _pack_bfloats(items)  # type: ignore[arg-type]
        return struct.pack(f"<{len(items)}{_FORMATS[datatype]}", *items)
    except (struct.error, OverflowError) as error:
        raise ItemOutOfRange(str(error)) from None


def unpack(datatype: str, data: bytes | memoryview, count: int) -> Items:
    """The items that bytes are, so many of them. Raises MalformedBytes."""
    if datatype == BYTES:
        return unpack_items(data, count)
    if datatype == "BF16":
        return _unpack_bfloats(data)
    return struct.unpack(f"<{len(data) // ITEM_BYTES[datatype]}{_FORMATS[datatype]}", data)


def _pack_bfloats(items: Sequence[float]) -> bytes:
    """BF16 of numbers, rounded to the nearest, and of two to the even one. Raises OverflowError for what is too large."""
    count = len(items)
    whole = struct.unpack(f"<{count}I", struct.pack(f"<{count}f", *items))
    return struct.pack(f"<{count}H", *map(_upper_half, whole))


def _upper_half(bits: int) -> int:
    exponent = bits & 0x7F80_0000
    if exponent == 0x7F80_0000:
        # An infinity is itself. Of a NaN the upper half alone could be an infinity, so it is made a quiet one.
        return bits >> 16 | (0x40 if bits & 0x7F_FFFF else 0)
    rounded = bits + 0x7FFF + (bits >> 16 & 1) >> 16
    if rounded & 0x7F80 == 0x7F80:
        raise OverflowError("a number too large to be BF16")
    return rounded


def _unpack_bfloats(data: bytes | memoryview) -> Items:
    whole = bytearray(2 * len(data))
    whole[2::4], whole[3::4] = data[::2], data[1::2]
    return struct.unpack(f"<{len(data) // 2}f", whole)
