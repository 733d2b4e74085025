"""A broken constraint is told in words: every constraint of every request message is broken once, from the descriptors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from blobhub.v1 import access_pb2, member_pb2, organization_pb2
from blobhub_server.blobtypes.conformance import expect_refusal, unpack
from blobhub_server.errors import InvalidRequest
from blobhub_server.rpc.validation import validate
from blobhub_server.rpc.wording import pattern
from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from methods import served_methods
from served import Api

pytestmark = pytest.mark.either_database

PACKAGES = ("blobhub.v1", "stranger.notes.v1")
UNKNOWN = 99
"""A number that no enum has."""


@dataclass(frozen=True)
class Constraint:
    """A rule of a field, or of a oneof, of a message that is in a request."""

    message: Descriptor
    field: str
    kind: str
    rule: Any

    def __str__(self) -> str:
        return f"{self.message.name}.{self.field} {self.kind}"

    def broken(self) -> str:
        """What a message is refused with that breaks it."""
        made = GetMessageClass(self.message)()
        break_, _ = KINDS[self.kind]
        break_(made, self)
        with pytest.raises(InvalidRequest) as raised:
            validate(made)
        path = re.compile(rf"{self.field}(\[0\])?")
        texts = [item.message for item in raised.value.violations if path.fullmatch(item.field)]
        assert texts, raised.value.violations
        return "\n".join(texts)

    def allowed(self) -> list[str]:
        """What the text has to say of what is allowed."""
        return [str(part) for part in KINDS[self.kind][1](self)]


def setting(value: Callable[[Any], Any]) -> Callable[[Message, Constraint], None]:
    """Sets the field, or the one item of a repeated field, to what is made of the rule's value."""

    def set_it(message: Message, constraint: Constraint) -> None:
        made = value(constraint.rule)
        if constraint.message.fields_by_name[constraint.field].is_repeated:
            getattr(message, constraint.field).append(made)
        else:
            setattr(message, constraint.field, made)

    return set_it


def set_span(seconds: int) -> Callable[[Message, Constraint], None]:
    """Sets a duration or a timestamp to the rule's value and so many seconds more."""

    def set_it(message: Message, constraint: Constraint) -> None:
        span = getattr(message, constraint.field)
        span.seconds = constraint.rule.seconds + seconds
        span.SetInParent()

    return set_it


def set_paths(message: Message, constraint: Constraint) -> None:
    getattr(message, constraint.field).paths.append("nothing")


def leave_out(_message: Message, _constraint: Constraint) -> None:
    pass


def add_one_too_many(message: Message, constraint: Constraint) -> None:
    items = getattr(message, constraint.field)
    field = constraint.message.fields_by_name[constraint.field]
    item = GetMessageClass(field.message_type)() if field.message_type else 1 if field.type in NUMBERS else "key"
    items.extend([item] * (constraint.rule + 1))


def add_twice(message: Message, constraint: Constraint) -> None:
    getattr(message, constraint.field).extend([1, 1])


def break_cel(message: Message, constraint: Constraint) -> None:
    value = CEL[constraint.rule.id]
    if isinstance(value, str):
        setattr(message, constraint.field, value)
    else:
        getattr(message, constraint.field).SetInParent()


def names_of(constraint: Constraint) -> list[str]:
    """The names of the enum values that a field's rules allow, and no other."""
    field = constraint.message.fields_by_name[constraint.field]
    rules = field.GetOptions().Extensions[validate_pb2.field].enum
    listed, values = getattr(rules, "in"), field.enum_type.values
    return [each.name for each in values if each.number not in rules.not_in and (not listed or each.number in listed)]


NUMBERS = (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64)
UUID_LIKE = "01890000-0000-7000-8000-000000000000"
CEL: dict[str, str | None] = {
    "alias.no_dot_segments": "a/../b",
    "name.not_me": "me",
    "update_mask.not_empty": None,
}
"""What breaks a rule in CEL, by its id; None is an empty message."""

KINDS: dict[str, tuple[Callable[[Message, Constraint], None], Callable[[Constraint], list[Any]]]] = {
    "string.min_len": (
        setting(lambda least: "x" * (least - 1)),
        lambda it: ["must not be empty"] if it.rule == 1 else [f"at least {it.rule} characters", f"not {it.rule - 1}"],
    ),
    "string.max_len": (
        setting(lambda most: "x" * (most + 1)),
        lambda it: [f"at most {it.rule} characters", f"not {it.rule + 1}"],
    ),
    "string.max_bytes": (
        setting(lambda most: "x" * (most + 1)),
        lambda it: [f"at most {it.rule} bytes", f"not {it.rule + 1}"],
    ),
    "string.uuid": (setting(lambda _: "x"), lambda _: ["a UUID, such as "]),
    "string.pattern": (setting(lambda _: "!"), lambda it: ["characters", " of `", "`a-z`" if "a-z" in it.rule else "`0-9`"]),
    "string.alias": (setting(lambda _: UUID_LIKE), lambda _: ["must not have the form of an id"]),
    "string.alias_or_id": (setting(lambda _: "no alias"), lambda _: ["an alias or an id"]),
    "string.alias_or_within": (setting(lambda _: "no alias"), lambda _: ["an alias", "`acme/pipeline@3/alias`", "an id"]),
    "string.printable": (setting(lambda _: "two\nlines"), lambda _: ["no control characters"]),
    "string.within": (setting(lambda _: "intake"), lambda _: ["`acme/pipeline@3/alias`", "an id"]),
    "string.in": (setting(lambda _: "nothing"), lambda it: [*(f"`{name}`" for name in it.rule), "not `nothing`"]),
    "int32.gte": (setting(lambda least: least - 1), lambda it: [it.rule, f"not {it.rule - 1}"]),
    "int32.lte": (setting(lambda most: most + 1), lambda it: [it.rule, f"not {it.rule + 1}"]),
    "int64.gte": (setting(lambda least: least - 1), lambda it: [it.rule, f"not {it.rule - 1}"]),
    "int64.lte": (setting(lambda most: most + 1), lambda it: [it.rule, f"not {it.rule + 1}"]),
    "bytes.min_len": (leave_out, lambda _: ["must not be empty"]),
    "bytes.max_len": (
        setting(lambda most: b"x" * (most + 1)),
        lambda it: [f"at most {it.rule} bytes", f"not {it.rule + 1}"],
    ),
    "repeated.min_items": (leave_out, lambda _: ["must not be empty"]),
    "repeated.unique": (add_twice, lambda _: ["no item twice"]),
    "enum.not_in": (setting(lambda numbers: numbers[0]), names_of),
    "enum.in": (setting(lambda _: UNKNOWN), lambda it: [*names_of(it), f"not {UNKNOWN}"]),
    "enum.defined_only": (setting(lambda _: UNKNOWN), lambda it: [*names_of(it), f"not {UNKNOWN}"]),
    "field_mask.in": (set_paths, lambda it: [*it.rule, "not `nothing`"]),
    "duration.gt": (set_span(0), lambda it: [f"greater than {it.rule.seconds}s"]),
    "duration.gte": (set_span(-1), lambda it: [f"greater than or equal to {it.rule.seconds}s"]),
    "duration.lte": (set_span(1), lambda it: [f"less than or equal to {it.rule.seconds}s"]),
    "timestamp.gte": (set_span(-1), lambda _: ["greater than or equal to 1970-01-01T00:00:00Z"]),
    "timestamp.lt": (set_span(0), lambda _: ["less than 2200-01-01T00:00:00Z"]),
    "repeated.max_items": (add_one_too_many, lambda it: [f"at most {it.rule} items", f"not {it.rule + 1}"]),
    "required": (leave_out, lambda _: ["must be set"]),
    "oneof.required": (
        leave_out,
        lambda it: ["exactly one of ", *(field.name for field in it.message.oneofs_by_name[it.field].fields)],
    ),
    "cel": (break_cel, lambda it: [it.rule.message]),
}
"""Of every kind of rule: what breaks it, and what has to be said then."""


def in_requests() -> Iterator[Descriptor]:
    """Every message that can be in a request."""
    waiting = [method.input for package in PACKAGES for method in served_methods(package)]
    seen: set[str] = set()
    while waiting:
        message = waiting.pop()
        if message.full_name not in seen and message.file.package in PACKAGES:
            seen.add(message.full_name)
            yield message
            waiting += [field.message_type for field in message.fields if field.message_type is not None]


def rules_in(rules: Message, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The rules of a field, each with its kind: `string.max_len`; those of items as of a field."""
    for field, value in rules.ListFields():
        if field.name == "ignore":
            continue
        if field.name == "cel":
            yield from (("cel", rule) for rule in value)
        elif field.name == "items":
            yield from rules_in(value)
        elif field.message_type is not None and field.message_type.full_name.startswith("buf.validate."):
            yield from rules_in(value, f"{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


OF_MESSAGES = {"etag.not_any_with_create_only", "request_id.with_sha256", "chunk.alone"}
"""Rules for whole messages, which have words of their own."""


def constraints() -> list[Constraint]:
    found = []
    for message in in_requests():
        for field in message.fields:
            rules = rules_in(field.GetOptions().Extensions[validate_pb2.field])
            found += [Constraint(message=message, field=field.name, kind=kind, rule=rule) for kind, rule in rules]
        for oneof in message.oneofs:
            if oneof.GetOptions().Extensions[validate_pb2.oneof].required:
                found.append(Constraint(message=message, field=oneof.name, kind="oneof.required", rule=True))
        of_message = message.GetOptions().Extensions[validate_pb2.message].cel
        assert {rule.id for rule in of_message} <= OF_MESSAGES, f"{message.name}: not tried here"
    return sorted(found, key=str)


def test_constraints_of_many_kinds_are_tried() -> None:
    found = {constraint.kind for constraint in constraints()}
    assert found <= KINDS.keys(), "a kind of rule that nobody has put into words"
    assert found >= {"enum.in", "enum.defined_only", "string.in", "string.pattern", "string.uuid", "cel", "oneof.required"}


@pytest.mark.parametrize("constraint", constraints(), ids=str)
def test_a_broken_constraint_is_told_in_words(constraint: Constraint) -> None:
    text = constraint.broken()
    for part in constraint.allowed():
        assert part in text, text
    for raw in ("in list", "[1", "regular expression", "regex", "item(s)", "value is", "value must", "one of the defined"):
        assert raw not in text, text


def enum_fields() -> list[FieldDescriptor]:
    fields = [field for message in in_requests() for field in message.fields if field.enum_type is not None]
    return [field for field in fields if field.GetOptions().Extensions[validate_pb2.field].HasField("enum")]


@pytest.mark.parametrize("field", enum_fields(), ids=lambda field: field.full_name)
def test_a_wrong_enum_value_is_answered_with_the_names_of_those_allowed(field: FieldDescriptor) -> None:
    kind = GetMessageClass(field.containing_type)

    def refused(number: int) -> list[str]:
        try:
            validate(kind(**{field.name: number}))
        except InvalidRequest as error:
            return [item.message for item in error.violations if item.field == field.name]
        return []

    allowed = {value.name for value in field.enum_type.values if not refused(value.number)}
    (text,) = refused(UNKNOWN)
    assert set(re.findall(r"[A-Z][A-Z_]+", text)) == allowed
    assert re.findall(r"\d+", text) == [str(UNKNOWN)]
    for value in field.enum_type.values:
        for text in refused(value.number):
            assert set(re.findall(r"[A-Z][A-Z_]+", text)) == allowed | {value.name}
            assert not re.search(r"\d", text)


@pytest.mark.parametrize(
    ("regex", "words"),
    [
        ("^[a-z0-9_-]{6,42}$", "must be 6 to 42 characters of `a-z`, `0-9`, `_` and `-`"),
        ("^[0-9a-f]{64,64}$", "must be 64 characters of `0-9` and `a-f`"),
        (
            "^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$",
            "must be 1 to 63 characters of `a-z`, `0-9`, `_` and `-`, the first and the last one of `a-z` and `0-9`",
        ),
        (
            "^[a-z]([a-z_]{0,8}[a-y])?$",
            "must be 1 to 10 characters of `a-z` and `_`, the first one of `a-z` and the last one of `a-y`",
        ),
        (
            "^[a-z.]+(/[a-z.]+)*$",
            "must be one or more characters of `a-z` and `.`, or several such segments with a `/` between them",
        ),
        ("^(a|b)*$", "must match the regular expression `^(a|b)*$`"),
    ],
)
def test_patterns_are_put_into_words(regex: str, words: str) -> None:
    assert pattern(regex) == words


async def test_a_caller_is_told_the_names_of_roles(api: Api) -> None:
    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))
    request = member_pb2.CreateMemberRequest(parent="acme", user="@ada", role=access_pb2.ROLE_UNSPECIFIED)
    error = await expect_refusal(api.members.CreateMember(request), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    bad = error_details_pb2.BadRequest()
    assert unpack(error, bad)
    assert [(item.field, item.description) for item in bad.field_violations] == [
        ("role", "must be ROLE_READ, ROLE_WRITE or ROLE_ADMIN, not ROLE_UNSPECIFIED")
    ]
    assert "ROLE_READ, ROLE_WRITE or ROLE_ADMIN" in (error.details() or "")


async def test_a_long_text_is_not_repeated_in_full(api: Api) -> None:
    request = organization_pb2.ListOrganizationsRequest(order_by="secret" * 1000)
    error = await expect_refusal(
        api.organizations.ListOrganizations(request), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"
    )
    assert "secret" * 10 not in (error.details() or "")


@pytest.mark.parametrize(
    ("given", "shown"), [("createTime desc", True), ("0f3a9c", False), ("Bearer x", True), ("x" * 33, False)]
)
async def test_of_texts_only_short_words_are_repeated(api: Api, given: str, shown: bool) -> None:
    request = organization_pb2.ListOrganizationsRequest(order_by=given)
    error = await expect_refusal(
        api.organizations.ListOrganizations(request), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"
    )
    assert (f", not `{given}`" in (error.details() or "")) is shown
