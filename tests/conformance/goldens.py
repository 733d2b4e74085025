"""Messages of every type, as each language writes them: what one writes, every other one reads as the same message.

A file has a line for each message: `{"type": …, "wire": base64, "json": text}`. The lines of all files are about the same
messages, in the same order; Python's are made here, the others are read from these and written anew.
"""

from __future__ import annotations

import base64
import importlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blobhub.v1
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message

PACKAGE = "blobhub.v1"
MAX_DEPTH = 4
"""Types that hold themselves are filled so deep."""
TEXT = 'a "text" \\ with\n\t\u2028 ü 漢 🚀 <&>'
NUMBERS: dict[int, tuple[Any, ...]] = {
    FieldDescriptor.TYPE_INT64: (2**63 - 1, -(2**63), 2**53 + 1),
    FieldDescriptor.TYPE_UINT64: (2**64 - 1, 2**53 + 1),
    FieldDescriptor.TYPE_INT32: (2**31 - 1, -(2**31)),
    FieldDescriptor.TYPE_UINT32: (2**32 - 1,),
    FieldDescriptor.TYPE_DOUBLE: (0.1, -1e300, 5e-324),
    FieldDescriptor.TYPE_FLOAT: (0.5, -1.5),
    FieldDescriptor.TYPE_BOOL: (True,),
    FieldDescriptor.TYPE_STRING: (TEXT, "plain"),
    FieldDescriptor.TYPE_BYTES: (bytes(range(256)), b"\xff"),
}
WELL_KNOWN = {
    "google.protobuf.Timestamp": ('"2026-11-28T04:05:06.07Z"', '"0001-01-01T00:00:00Z"', '"9999-12-31T23:59:59.999999999Z"'),
    "google.protobuf.Duration": ('"1.500s"', '"-0.000000001s"', '"315576000000s"'),
    "google.protobuf.FieldMask": ('"displayName,description"', '"alias"'),
    "google.protobuf.Any": ('{"@type": "type.googleapis.com/blobhub.v1.ModelShape", "dimensions": ["9007199254740993"]}',),
    "google.protobuf.Struct": ('{"a": {"b": [1, null, "c"]}, "": true}',),
    "google.protobuf.Value": ('{"a": [1.5, null, "c", {}]}', "null", "[]", "-0.5", f"{json.dumps(TEXT)}", "false"),
}


def types(image: Path) -> list[str]:
    """The contract's messages that every language has, by their full names."""

    def within(prefix: str, messages: Any) -> Iterator[str]:
        for message in messages:
            if not message.options.map_entry:
                yield f"{prefix}.{message.name}"
                yield from within(f"{prefix}.{message.name}", message.nested_type)

    files = FileDescriptorSet.FromString(image.read_bytes()).file
    return sorted(name for file in files if file.package == PACKAGE for name in within(PACKAGE, file.message_type))


def examples(image: Path) -> Iterator[Message]:
    """Messages of every type: an empty one, and full ones, one for each member of its largest `oneof`."""
    for folder in blobhub.v1.__path__:
        for path in sorted(Path(folder).glob("*_pb2.py")):
            importlib.import_module(f"{PACKAGE}.{path.stem}")
    for name in types(image):
        descriptor = descriptor_pool.Default().FindMessageTypeByName(name)
        yield message_factory.GetMessageClass(descriptor)()
        for variant in range(max((len(each.fields) for each in descriptor.oneofs), default=1)):
            yield _filled(descriptor, variant, 0)


def _filled(descriptor: Descriptor, variant: int, depth: int) -> Message:
    message = message_factory.GetMessageClass(descriptor)()
    if known := WELL_KNOWN.get(descriptor.full_name):
        return json_format.Parse(known[variant % len(known)], message)
    for field in descriptor.fields:
        oneof = field.containing_oneof
        chosen = oneof is None or oneof.fields[variant % len(oneof.fields)] is field
        if chosen and (depth < MAX_DEPTH or field.message_type is None):
            _fill(message, field, variant, depth)
    return message


def _fill(message: Message, field: FieldDescriptor, variant: int, depth: int) -> None:
    values = (_value(field, variant + field.number + nth, depth) for nth in itertools.count())
    if field.message_type and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        for nth in range(2):
            _put(getattr(message, field.name), _value(key, nth, depth), _value(value, variant + nth, depth))
    elif field.is_repeated:
        getattr(message, field.name).extend(itertools.islice(values, 2))
    elif field.message_type:
        getattr(message, field.name).CopyFrom(next(values))
    else:
        setattr(message, field.name, next(values))


def _put(mapping: Any, key: Any, value: Any) -> None:
    if isinstance(value, Message):
        mapping[key].CopyFrom(value)
    else:
        mapping[key] = value


def _value(field: FieldDescriptor, which: int, depth: int) -> Any:
    if field.message_type:
        return _filled(field.message_type, which, depth + 1)
    if field.enum_type:
        numbers = [value.number for value in field.enum_type.values]
        return numbers[1 + which % (len(numbers) - 1)]
    return NUMBERS[field.type][which % len(NUMBERS[field.type])]


def write(path: Path, messages: list[Message]) -> None:
    """Write messages as Python does."""
    with path.open("w") as file:
        for message in messages:
            line = {
                "type": message.DESCRIPTOR.full_name,
                "wire": base64.b64encode(message.SerializeToString()).decode(),
                "json": json_format.MessageToJson(message, indent=None),
            }
            print(json.dumps(line), file=file)


def differences(path: Path, messages: list[Message]) -> list[str]:
    """What another language has written that Python does not read as these messages."""
    wrong = []
    lines = [
        json.loads(line) for line in path.read_text().removesuffix("\n").split("\n")
    ]  # A text may have U+2028 as it is.
    if len(lines) != len(messages):
        wrong.append(f"{path.name} has {len(lines)} messages in place of {len(messages)}")
    for nth, (line, message) in enumerate(zip(lines, messages, strict=False), 1):
        read = (type(message).FromString(base64.b64decode(line["wire"])), json_format.Parse(line["json"], type(message)()))
        for form, found in zip(("wire", "json"), read, strict=True):
            if line["type"] != message.DESCRIPTOR.full_name or found != message:
                wrong.append(f"{path.name}:{nth}: {line['type']} is another message as {form}")
    return wrong
