"""Messages as plain values of Python, and their fields as people read them."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

from blobhub_client import get_value
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

OURS = ("blobhub.v1.", "stranger.")
"""Packages whose messages may hold values that have their JSON text beside them."""
VALUE = Value.DESCRIPTOR.full_name


def plain(message: Message) -> dict[str, Any]:
    """A message in protobuf's JSON form, with the contract's own names, and its JSON values exact and in one place."""
    made = MessageToDict(message, preserving_proto_field_name=True)
    _make_exact(message, made)
    return made


def _make_exact(message: Message, made: dict[str, Any]) -> None:
    fields = message.DESCRIPTOR.fields_by_name
    for field, value in message.ListFields():
        name = field.name
        base = name.removesuffix("_json")
        if base != name and base in fields:
            made[base] = json.loads(value)
            del made[name]
        elif _is_value(field) and f"{name}_json" in fields:
            made[name] = get_value(message, name)
        elif field.message_type is not None and field.message_type.full_name.startswith(OURS):
            if field.message_type.GetOptions().map_entry:
                continue
            messages, forms = (value, made[name]) if field.is_repeated else ([value], [made[name]])
            for inner, form in zip(messages, forms, strict=True):
                _make_exact(inner, form)


def _is_value(field: Any) -> bool:
    return field.message_type is not None and field.message_type.full_name == VALUE and not field.is_repeated


def readable_fields(message: Message, prefix: str = "") -> dict[str, str]:
    """What is set in a message, for people: `timezone` of `spec` is called `spec.timezone`."""
    made: dict[str, str] = {}
    exact = plain(message)
    for field in message.DESCRIPTOR.fields:
        if field.name not in exact:
            continue
        value = getattr(message, field.name)
        if _holds_fields(field):
            made |= readable_fields(value, f"{prefix}{field.name}.")
        else:
            made[prefix + field.name] = _readable(field, value, exact[field.name])
    return made


def readable(message: Message, path: str) -> str:
    """A field of a message, for people; empty where it is not set. `spec.timezone` goes into a message."""
    name, _, rest = path.partition(".")
    field = message.DESCRIPTOR.fields_by_name[name]
    if rest:
        return readable(getattr(message, name), rest)
    exact = plain(message)
    return _readable(field, getattr(message, name), exact[name]) if name in exact else ""


def _holds_fields(field: Any) -> bool:
    kind = field.message_type
    return kind is not None and not field.is_repeated and kind.full_name.startswith(OURS)


def _readable(field: Any, value: Any, exact: Any) -> str:
    if isinstance(value, Timestamp):
        return value.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, Duration):
        return duration_text(value.ToTimedelta().total_seconds())
    if field.enum_type is not None and not field.is_repeated:
        return enum_word(field.enum_type, value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return exact if isinstance(exact, str) and not _is_value(field) else json_text(exact)


def enum_word(kind: EnumDescriptor, number: int) -> str:
    """What follows the enum's own name in a value's: `private` for `VISIBILITY_PRIVATE`."""
    prefix = kind.values_by_number[0].name.removesuffix("UNSPECIFIED")
    found = kind.values_by_number.get(number)
    return found.name.removeprefix(prefix).lower().replace("_", "-") if found else str(number)


def enum_words(kind: EnumDescriptor) -> dict[str, int]:
    """The words of an enum, and the numbers that they stand for."""
    return {enum_word(kind, number): number for number in kind.values_by_number if number}


def json_text(value: Any, indent: int | None = None) -> str:
    """A plain value as JSON, readable in any script."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def duration_text(seconds: float) -> str:
    """A span of time in its best unit."""
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
