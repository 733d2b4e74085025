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

Items = Sequence[bool] | Sequence[int] | Sequence[float] | Sequence[bytes]


class ItemOutOfRange(Exception):
    """An item is none of its datatype."""


def pack(datatype: str, items: Items) -> bytes:
    """The bytes of items of a datatype that can be sent. Raises ItemOutOfRange."""
    if datatype == BYTES:
        return pack_items(items)  # type: ignore[arg-type]
    try:
        return struct.pack(f"<{len(items)}{_FORMATS[datatype]}", *items)
    except (struct.error, OverflowError) as error:
        raise ItemOutOfRange(str(error)) from None


def unpack(datatype: str, data: bytes | memoryview, count: int) -> Items:
    """The items that bytes are, so many of them. Raises MalformedBytes."""
    if datatype == BYTES:
        return unpack_items(data, count)
    return struct.unpack(f"<{len(data) // ITEM_BYTES[datatype]}{_FORMATS[datatype]}", data)
