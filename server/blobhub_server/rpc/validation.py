"""Constraints: declared in the protos, enforced here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value
from protovalidate import CompilationError, Validator
from protovalidate import Violation as Failure

from blobhub_server.errors import InvalidRequest, Violation
from blobhub_server.rpc.wording import wording
from blobhub_server.start import StartError

_validator = Validator()
_LARGE_BYTES = 4 << 10
_SHORT_BYTES = 4 << 10
"""More than the least that any field of bytes has to have."""
_MAX_NANOS = 999_999_999
_VALUES = frozenset({"google.protobuf.Value", "google.protobuf.Struct"})


class BrokenConstraint(StartError):
    """A constraint declared in the protos cannot be enforced."""


def compile_constraints(messages: Iterable[Descriptor]) -> None:
    """Compile the rules of request messages and of all that is in them. Raises BrokenConstraint.

    The validator compiles a message's rules at its first use; a rule that does not compile has to stop the start.
    """
    seen: set[str] = set()
    waiting = list(messages)
    while waiting:
        message = waiting.pop()
        if message.full_name in seen:
            continue
        seen.add(message.full_name)
        try:
            _validator.collect_violations(GetMessageClass(message)())
        except CompilationError as error:
            raise BrokenConstraint(f"{message.full_name} has a constraint that does not compile: {error}") from error
        waiting += [field.message_type for field in message.fields if field.message_type is not None]


@dataclass(frozen=True, slots=True)
class _Form:
    """What there is to look at in messages of a type, beside their constraints. What is not there costs no call anything.

    To ask a message for all its fields would copy each, a mebibyte of bytes too.
    """

    texts: Sequence[str]
    """The fields that have one text each."""
    lengths: Mapping[str, int]
    """How long each field of bytes may be, where there is a bound and no other constraint on what is in it."""
    has_values: bool
    """Whether there may be Values, or messages without constraints, in a message or in what is in it."""
    has_durations: bool


@cache
def _form(message: Descriptor) -> _Form:
    found = list(_message_fields(message))
    own = sorted(message.fields, key=lambda field: field.number)
    return _Form(
        texts=[field.name for field in own if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated],
        lengths=dict(_lengths(own)),
        has_values=any(_is_ignored(field) or kind.full_name in _VALUES for field, kind in found),
        has_durations=any(kind.full_name == Duration.DESCRIPTOR.full_name for _, kind in found),
    )


def _lengths(fields: Iterable[FieldDescriptor]) -> Iterator[tuple[str, int]]:
    for field in fields:
        if field.type == FieldDescriptor.TYPE_BYTES and not field.is_repeated:
            rules = field.GetOptions().Extensions[validate_pb2.field].bytes
            if rules.HasField("max_len") and {rule.name for rule, _ in rules.ListFields()} <= {"min_len", "max_len"}:
                yield field.name, rules.max_len


def _message_fields(message: Descriptor) -> Iterator[tuple[FieldDescriptor, Descriptor]]:
    """The fields that are messages, in a message and in what may be in it, with their types; no maps, nothing in Values."""
    seen: set[str] = set()
    waiting = [message]
    while waiting:
        current = waiting.pop()
        if current.full_name in seen or current.full_name in _VALUES:
            continue
        seen.add(current.full_name)
        for field in current.fields:
            kind = field.message_type
            if kind is not None and not kind.GetOptions().map_entry:
                yield field, kind
                waiting.append(kind)


def validate(request: Message) -> None:
    """Raise InvalidRequest, with every violation, when a request breaks the constraints declared for it."""
    form = _form(cast(Descriptor, request.DESCRIPTOR))
    bare = _without_values(request) if form.has_values else _shortened(request, form.lengths) if form.lengths else request
    found = [Violation(_path(item), wording(item, request)) for item in _validator.collect_violations(bare)]
    # PostgreSQL cannot store a NUL in a text. A constraint would have to be repeated for every field.
    found += [Violation(name, "must not contain a NUL character") for name in form.texts if "\0" in getattr(request, name)]
    if form.has_durations:
        found += _of_durations(bare)
    if found:
        raise InvalidRequest(found)


def _of_durations(message: Message, within: str = "") -> Iterator[Violation]:
    """The Durations that duration.proto does not allow: the validator only adds up their seconds and nanoseconds."""
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is None or kind.GetOptions().map_entry or _is_ignored(field):
            continue
        for number, item in enumerate(value if field.is_repeated else [value]):
            place = f"{within}{field.name}[{number}]" if field.is_repeated else f"{within}{field.name}"
            if not isinstance(item, Duration):
                # What a Value holds are no fields of the contract, and there may be very many.
                yield from () if isinstance(item, Value | Struct) else _of_durations(item, f"{place}.")
            elif abs(item.nanos) > _MAX_NANOS or item.seconds * item.nanos < 0:
                yield Violation(place, f"must have nanos from 0 to {_MAX_NANOS}, with the sign of its seconds")


def _shortened(request: Message, lengths: Mapping[str, int]) -> Message:
    """A request with the beginning of each long field of bytes that is no longer than it may be: the validator copies all of
    it, which takes ten times as long as to look at its length.
    """
    long = {name: value for name in lengths if _SHORT_BYTES < len(value := getattr(request, name)) <= lengths[name]}
    if not long:
        return request
    rest = {field.name: value for field, value in request.ListFields() if field.name not in long}
    return type(request)(**rest, **{name: value[:_SHORT_BYTES] for name, value in long.items()})


def _without_values(request: Message) -> Message:
    """A large request with null in the place of its Values: the validator goes over them slowly, and there is no constraint
    on what is in one.
    """
    if request.ByteSize() < _LARGE_BYTES:
        return request
    bare = type(request)()
    bare.CopyFrom(request)
    _empty_values(bare)
    return bare


def _empty_values(message: Message) -> None:
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        if _is_ignored(field):
            value.Clear()  # It stays set, for the constraints of what it is in.
            continue
        for item in value if field.is_repeated else [value]:
            if isinstance(item, Value):
                item.null_value = NULL_VALUE
            elif isinstance(item, Struct):
                item.fields.clear()
            else:
                _empty_values(item)


def _is_ignored(field: FieldDescriptor) -> bool:
    """Whether there is no constraint on what is in a message's field, which is no list."""
    return (
        bool(field.GetOptions().Extensions[validate_pb2.field].ignore == validate_pb2.IGNORE_ALWAYS)
        and not field.is_repeated
    )


def _path(failure: Failure) -> str:
    """The field as people write it: `input_data[0].alias`."""
    path = ""
    for element in failure.proto.field.elements if failure.proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        subscript = element.subscript
        if subscript is not None:
            path += f"[{subscript.value}]"
    return path
