"""Tensors as they go over the wire and to the processes: bytes, row by row, little-endian; nothing here needs numpy."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

ITEM_BYTES = {
    "BOOL": 1,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "FP16": 2,
    "BF16": 2,
    "FP32": 4,
    "FP64": 8,
}
"""The datatypes of the Open Inference Protocol whose items all have one size. `BYTES` is the other that can be sent."""

BYTES = "BYTES"
MAX_ITEMS = 1 << 40
MAX_TEXTS = 1 << 20
"""The same for `BYTES`, whose items are gone over one by one. In a message of 4 MiB there are not more."""

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output with its items. Each of `BYTES` has its length in four bytes before it, as in the protocol."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


class MalformedBytes(Exception):
    """The data of a `BYTES` tensor is cut short, or has more or fewer items than its shape."""


def item_count(shape: Sequence[int]) -> int:
    """How many items a tensor of a shape without free dimensions has."""
    return math.prod(shape)


def pack_items(items: Sequence[bytes]) -> bytes:
    """The data of a `BYTES` tensor with these items."""
    return b"".join(part for item in items for part in (_LENGTH.pack(len(item)), item))


def unpack_items(data: bytes | memoryview, count: int) -> list[bytes]:
    """The items of a `BYTES` tensor. Raises MalformedBytes."""
    ends = _ends(data, count)
    return [bytes(data[start + 4 : end]) for start, end in zip([0, *ends], ends, strict=False)]


def check_items(data: bytes | memoryview, count: int) -> None:
    """Raise MalformedBytes unless the data of a `BYTES` tensor has so many items."""
    _ends(data, count)


def split_rows(tensor: Tensor, rows: Sequence[int]) -> list[Tensor]:
    """A tensor cut along its first dimension into such of so many rows each; they are as many as it has. Copies no items.

    Raises MalformedBytes.
    """
    data, rest = memoryview(tensor.data), tensor.shape[1:]
    per_row = item_count(rest)
    if tensor.datatype == BYTES:
        at = [0, *_ends(data, item_count(tensor.shape))]
    cut, start = [], 0
    for count in rows:
        end = start + count
        if tensor.datatype == BYTES:
            piece = data[at[start * per_row] : at[end * per_row]]
        else:
            row_bytes = per_row * ITEM_BYTES[tensor.datatype]
            piece = data[start * row_bytes : end * row_bytes]
        cut.append(Tensor(name=tensor.name, datatype=tensor.datatype, shape=(count, *rest), data=piece))
        start = end
    return cut


def _ends(data: bytes | memoryview, count: int) -> list[int]:
    """Where each item ends."""
    if count * _LENGTH.size > len(data):
        raise MalformedBytes
    ends, at = [], 0
    for _ in range(count):
        if at + _LENGTH.size > len(data):
            raise MalformedBytes
        at += _LENGTH.size + int(_LENGTH.unpack_from(data, at)[0])
        ends.append(at)
    if at != len(data):
        raise MalformedBytes
    return ends
