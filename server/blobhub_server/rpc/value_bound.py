"""How many items the Values of a message have, how many fields all of it has, and how long its lists of numbers are: counted
in its bytes, before anything is made of them.

A Value of four megabytes holds a million nulls, and a list of messages two million that are empty. Reading, validating and
converting them takes seconds and hundreds of megabytes, so a request that has more items than `MAX_MESSAGE_ITEMS`, or more
fields than `MAX_FIELDS`, is refused as it is. Larger values come as JSON text, which is read in C.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

MAX_MESSAGE_ITEMS = 4_096
"""How many items all Values and Structs of a message may have, in or out: 5 ms on each way for those that take longest."""
MAX_LISTED_BYTES = 4 << 20
"""How many bytes a message may have in lists of numbers, which become a Python object each. No message outside the port for
large ones has more in all."""
MAX_FIELDS = 200_000
"""How many fields a message may have, in all that is in it: a definition of as many parts as there may be has some less."""

MAX_WEIGHED_FIELDS = 32
"""A request with more fields than that is weighed as a whole."""
MAX_TAKEN_BYTES = 2 << 20
"""So is a larger one: to copy it takes some milliseconds, however little is to be gone over."""

_LEAST_BYTES = 2
"""What a field takes: its tag, and its length or number."""
_NOT_PACKED = (FieldDescriptor.CPPTYPE_MESSAGE, FieldDescriptor.CPPTYPE_STRING)
_CONTAINERS = ("google.protobuf.ListValue", "google.protobuf.Struct")


@dataclass(slots=True)
class _Plan:
    """Which fields of a message are messages, and which are lists of numbers, by number. In a container each message is an
    item."""

    container: bool
    packed: frozenset[int]
    inner: dict[int, _Plan] = field(default_factory=dict)


class _Malformed(Exception):
    """The bytes are no message."""


def bound_check(request: Message) -> Callable[[bytes], bool]:
    """A function that says whether the bytes of a request of this type have more items or fields than they may.

    Bytes that are no message have not: they are for the decoder to refuse.
    """
    plan = _plan(cast(Descriptor, request.DESCRIPTOR), {})
    return lambda data: len(data) > MAX_MESSAGE_ITEMS * _LEAST_BYTES and _exceeds(data, plan)


def weigher(request: Message) -> Callable[[bytes], int]:
    """A function that says how many bytes of a request of this type are to be gone over: not those that stand in a field of
    bytes of its own, such as a chunk of a file, which are taken as they are.
    """
    fields = cast(Descriptor, request.DESCRIPTOR).fields
    taken = frozenset(field.number for field in fields if field.type == FieldDescriptor.TYPE_BYTES)
    return partial(_weigh, taken) if taken else len


def _weigh(taken: Collection[int], data: bytes) -> int:
    weight, at, end = len(data), 0, len(data)
    if end > MAX_TAKEN_BYTES:
        return end
    try:
        for _ in range(MAX_WEIGHED_FIELDS):
            key, at = _varint(data, at)
            if key & 7 == 2:
                size, at = _varint(data, at)
                at += size
                weight -= size if key >> 3 in taken else 0
            else:
                at = _skip(data, at, key & 7)
            if at >= end:
                break
    except (_Malformed, IndexError):
        return end
    return weight if at == end else end


def _plan(message: Descriptor, known: dict[str, _Plan]) -> _Plan:
    """The plan of a message; `known` are the plans of those that it is inside, because Values hold Values."""
    if message.full_name not in known:
        packed = frozenset(
            found.number for found in message.fields if found.is_repeated and found.cpp_type not in _NOT_PACKED
        )
        plan = known[message.full_name] = _Plan(container=message.full_name in _CONTAINERS, packed=packed)
        plan.inner |= {found.number: _plan(found.message_type, known) for found in message.fields if found.message_type}
    return known[message.full_name]


def _exceeds(data: bytes, plan: _Plan) -> bool:
    found, fields, listed, at, end = 0, 0, 0, 0, len(data)
    around: list[tuple[int, _Plan]] = []
    try:
        while True:
            while at == end:
                if not around:
                    return listed > MAX_LISTED_BYTES
                end, plan = around.pop()
            fields += 1
            if fields > MAX_FIELDS:
                return True
            key, at = _varint(data, at)
            inner = plan.inner.get(key >> 3)
            if key & 7 in (3, 4):
                return True  # A group, which may hold anything: none of our messages has one.
            if key & 7 != 2:
                at = _skip(data, at, key & 7)
            else:
                size, at = _varint(data, at)
                if inner is None:
                    at += size
                    listed += size if key >> 3 in plan.packed else 0
                else:
                    found += plan.container
                    if found > MAX_MESSAGE_ITEMS or at + size > end:
                        return found > MAX_MESSAGE_ITEMS
                    around.append((end, plan))
                    end, plan = at + size, inner
            if at > end:
                return False
    except (_Malformed, IndexError):
        return False


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at a place, and the place after it."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for place in range(1, 10):
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise _Malformed


def _skip(data: bytes, at: int, wire_type: int) -> int:
    """The place after a number."""
    match wire_type:
        case 0:
            return _varint(data, at)[1]
        case 1:
            return at + 8
        case 5:
            return at + 4
    raise _Malformed
