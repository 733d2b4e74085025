"""Protobuf by hand: messages that no library would write."""

from __future__ import annotations

import struct
from typing import Any

from calling import METHODS, request_of


def varint(number: int) -> bytes:
    """A number in groups of seven bits."""
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


def field(number: int, value: int | float | bytes) -> bytes:
    """One field: a number as a varint, a float as a double, anything else with its length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def message(method: str, **fields: Any) -> bytes:
    """The fields of a method's request; more may be written behind them."""
    return bytes(request_of(METHODS[method], **fields).SerializeToString())
