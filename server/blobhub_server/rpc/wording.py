"""What a broken constraint is called: in words, with what is allowed and, where it helps, what was given.

protovalidate's own texts show enum values by number and patterns as they are. Its texts that are plain are kept, and so are
the messages of CEL rules, which the protos give. Texts that callers sent are repeated only where a list of texts is allowed,
and only short words: a text may be a secret in the wrong field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message
from protovalidate import Violation as Failure

UUID = "a UUID, such as 0198c0de-7a11-7000-8000-5a3d1c2b4e6f"

_CLASS = r"\[((?:[^\]\\])+)\]"
_WORD = re.compile(r"[A-Za-z][A-Za-z_. ]{0,31}")
_COUNTED = re.compile(rf"\^{_CLASS}\{{(\d+)(?:,(\d+))?\}}\$")
_ENDS = re.compile(rf"\^{_CLASS}\({_CLASS}\{{0,(\d+)\}}{_CLASS}\)\?\$")
_SEGMENTS = re.compile(rf"\^{_CLASS}\+\(/{_CLASS}\+\)\*\$")


def wording(failure: Failure, message: Message) -> str:
    """What is wrong with a field, for people; `message` is the one that was validated."""
    kind = failure.proto.rule_id
    element = _element(failure, message)
    if kind.startswith("enum.") and isinstance(element, FieldDescriptor) and (allowed := _allowed(element)):
        return f"must be {one_of(allowed)}, not {_shown_enum(element, failure.field_value)}"
    if kind == "required" and isinstance(element, OneofDescriptor):
        return f"exactly one of {all_of(field.name for field in element.fields)} must be set"
    words = _WORDS.get(kind)
    if words is not None:
        return words(failure)
    text = failure.proto.message or "is not valid"
    return f"{text}, not {failure.field_value}" if kind.startswith(("int", "uint")) else text


def one_of(names: Iterable[str]) -> str:
    """`a, b or c`."""
    return _joined(names, "or")


def all_of(names: Iterable[str]) -> str:
    """`a, b and c`."""
    return _joined(names, "and")


def _joined(names: Iterable[str], last: str) -> str:
    *before, end = names
    return f"{', '.join(before)} {last} {end}" if before else end


def _element(failure: Failure, message: Message) -> FieldDescriptor | OneofDescriptor | None:
    """The field or oneof that a violation is about."""
    within: Any = message.DESCRIPTOR
    found: FieldDescriptor | OneofDescriptor | None = None
    for element in failure.proto.field.elements if failure.proto.field else ():
        if within is None:
            return None
        name = element.field_name
        field = within.fields_by_name.get(name)
        found = field or within.oneofs_by_name.get(name)
        within = field.message_type if field is not None else None
    return found


def _allowed(field: FieldDescriptor) -> Sequence[str]:
    """The names of the values of an enum field that its constraints allow."""
    rules = field.GetOptions().Extensions[validate_pb2.field]
    rule = rules.repeated.items.enum if field.is_repeated else rules.enum
    listed = [rule.const] if rule.HasField("const") else getattr(rule, "in")
    values = field.enum_type.values if field.enum_type is not None else ()
    return [value.name for value in values if (not listed or value.number in listed) and value.number not in rule.not_in]


def _shown_enum(field: FieldDescriptor, number: Any) -> str:
    """The name of the value that was given, or its number when it has no name."""
    value = field.enum_type.values_by_number.get(number) if field.enum_type is not None else None
    return value.name if value is not None else str(number)


def pattern(regex: str) -> str:
    """What a text of a pattern looks like, in words for the forms that the protos use."""
    if found := _COUNTED.fullmatch(regex):
        return f"must be {_count(int(found[2]), int(found[3] or found[2]))} of {_characters(found[1])}"
    if found := _ENDS.fullmatch(regex):
        first, inner, most, last = found.groups()
        count = f"must be {_count(1, int(most) + 2)} of {_characters(inner)}"
        if first == last:
            return f"{count}, the first and the last one of {_characters(first)}"
        return f"{count}, the first one of {_characters(first)} and the last one of {_characters(last)}"
    if (found := _SEGMENTS.fullmatch(regex)) and found[1] == found[2]:
        return f"must be one or more characters of {_characters(found[1])}, or several such segments with a `/` between them"
    return f"must match the regular expression `{regex}`"


def _count(least: int, most: int) -> str:
    return f"{most} characters" if least == most else f"{least} to {most} characters"


def _characters(characters: str) -> str:
    """What is in a character class: `a-z`, `0-9`, `-` and `_`."""
    return all_of(f"`{part}`" for part in re.findall(r".-(?!$).|.", characters))


def _in(failure: Failure) -> str:
    return f"must be {one_of(f'`{value}`' for value in failure.rule_value)}{_given([failure.field_value])}"


def _given(texts: Iterable[str]) -> str:
    """What was given in place of words that are allowed, where it is words; keys have digits and are long."""
    words = [f"`{text}`" for text in texts if _WORD.fullmatch(text)]
    return f", not {all_of(words)}" if words else ""


def _not_in(failure: Failure) -> str:
    return f"must not be {one_of(f'`{value}`' for value in failure.rule_value)}"


def _paths(failure: Failure) -> str:
    others = [path for path in failure.field_value.paths if path not in failure.rule_value]
    return f"must only name {all_of(failure.rule_value)}{_given(others[:3])}"


def _too_short(failure: Failure, unit: str = "characters") -> str:
    given, least = len(failure.field_value), failure.rule_value
    return f"must be at least {least} {unit} long, not {given}" if given else "must not be empty"


def _too_few(given: int, least: int) -> str:
    return f"must have at least {least} items, not {given}" if given else "must not be empty"


_WORDS: dict[str, Callable[[Failure], str]] = {
    "required": lambda _: "must be set",
    "string.uuid": lambda _: f"must be {UUID}",
    "string.uuid_empty": lambda _: f"must not be empty: it is {UUID}",
    "string.pattern": lambda failure: pattern(failure.rule_value),
    "string.in": _in,
    "string.not_in": _not_in,
    "string.min_len": _too_short,
    "string.max_len": lambda it: f"must be at most {it.rule_value} characters long, not {len(it.field_value)}",
    "string.max_bytes": lambda it: f"must be at most {it.rule_value} bytes long, not {len(it.field_value.encode())}",
    "bytes.min_len": lambda it: _too_short(it, "bytes"),
    "bytes.max_len": lambda it: f"must be at most {it.rule_value} bytes long, not {len(it.field_value)}",
    "repeated.min_items": lambda it: _too_few(len(it.field_value), it.rule_value),
    "repeated.unique": lambda _: "must have no item twice",
    "repeated.max_items": lambda it: f"must have at most {it.rule_value} items, not {len(it.field_value)}",
    "field_mask.in": _paths,
}
"""The words for a rule, by its id. Rules that are not here keep protovalidate's text."""
