"""Converts between `google.protobuf.Value` and JSON values, and between times and timestamps.

Protobuf's Value has doubles only. Whole numbers that a double says exactly come back as integers, but for -0.0, which has
a sign that an integer has not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXACT = 1 << 53
_LENGTH_DELIMITED = 2


def to_value(value: Any) -> Value:
    """The Value that stands for a JSON value. A float that JSON cannot write becomes its text."""
    made = Value()
    _fill(made, value)
    return made


def _fill(made: Value, value: Any) -> None:
    if value is None:
        made.null_value = 0  # type: ignore[assignment]  # the generated enum type of NULL_VALUE
    elif isinstance(value, bool):
        made.bool_value = value
    elif isinstance(value, int | float):
        made.number_value = value
    elif isinstance(value, str):
        made.string_value = value
    elif isinstance(value, dict):
        fields = made.struct_value.fields
        made.struct_value.SetInParent()
        for key, item in value.items():
            _fill(fields[str(key)], item)
    else:
        made.list_value.SetInParent()
        for item in value:
            _fill(made.list_value.values.add(), item)


def from_value(value: Value) -> Any:
    """The JSON value that a Value stands for; an unset one is null."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {key: from_value(item) for key, item in value.struct_value.fields.items()}
    if kind == "list_value":
        return [from_value(item) for item in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        whole = number.is_integer() and abs(number) < _EXACT and (number or math.copysign(1, number) > 0)
        return int(number) if whole else number
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    return None


def repeated(number: int, messages: Iterable[bytes]) -> bytes:
    """A message whose field of this number, up to 15, has these messages, encoded as they are.

    Encoded messages of one type, one after the other, are one: so a large answer is put together of parts, none of which is
    parsed, copied or encoded again. https://protobuf.dev/programming-guides/encoding/#structure
    """
    tag = bytes([number << 3 | _LENGTH_DELIMITED])
    return b"".join(part for message in messages for part in (tag, _varint(len(message)), message))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def to_timestamp(time: datetime) -> Timestamp:
    """The Timestamp of an aware datetime, to the microsecond."""
    past = time - _EPOCH
    return Timestamp(seconds=past.days * 86400 + past.seconds, nanos=past.microseconds * 1000)


def stamp(seconds: float) -> Timestamp:
    """The Timestamp of a unix time in seconds, to the microsecond."""
    micros = round(seconds * 1e6)
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def to_duration(seconds: float) -> Duration:
    """The Duration of that many seconds, to the microsecond; not for negative ones."""
    micros = round(seconds * 1e6)
    return Duration(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def from_duration(duration: Duration) -> timedelta:
    """The time span of a Duration, to the microsecond."""
    return timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1000)
