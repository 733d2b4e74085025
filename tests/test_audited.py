"""What a request's fields show in the audit log: those that say `audited`, and no others."""

from __future__ import annotations

from collections.abc import Iterator

import acme
import flows
import pytest
from acme import ADMIN, WRITE
from blobhub.v1 import access_pb2, api_key_pb2, audit_pb2, limit_pb2, member_pb2
from calling import METHODS, ask
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from methods import Method
from served import Api

pytestmark = pytest.mark.either_database

NEVER = {
    "etag": "says nothing of what was done",
    "request_id": "a field of the entry itself",
    "description": "prose",
    "display_name": "prose",
    "comment": "prose",
    "note": "prose",
    "document": "content",
    "text": "content",
    "content": "content",
    "value_json": "content",
    "body_json": "a secret",
}
"""Fields that an entry does not show, by name, and why."""

CHOICES = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_BOOL)

CHANGES = [method for method in METHODS.values() if method.changes]


def is_audited(field: FieldDescriptor) -> bool:
    return bool(field.GetOptions().Extensions[access_pb2.audited])


def fields_of(message: Descriptor) -> Iterator[FieldDescriptor]:
    """The fields of a request, and of the messages in it. What is in a list is content, and so are values and masks."""
    for field in message.fields:
        if field.message_type and not field.message_type.full_name.startswith("google.protobuf."):
            if not field.is_repeated and field.name not in NEVER:
                yield from fields_of(field.message_type)
        else:
            yield field


@pytest.mark.parametrize("method", CHANGES, ids=lambda method: method.name)
def test_every_field_of_a_change_is_audited_or_of_a_kind_that_is_not(method: Method) -> None:
    """A new field has to decide. What the call is about is a field of the entry itself."""
    for field in fields_of(method.input):
        if field.type in CHOICES and not field.is_repeated and field.name != method.access.field:
            assert is_audited(field) or field.name in NEVER, f"say whether {field.full_name} is audited"
        if field.name == "update_mask":
            assert is_audited(field), field.full_name
        shown = field.message_type is None or field.name == "update_mask"
        assert not is_audited(field) or (shown and not field.is_repeated), f"{field.full_name} cannot be shown"
        assert not (is_audited(field) and field.name in NEVER and field.type == FieldDescriptor.TYPE_STRING), field.full_name


def test_nothing_but_requests_of_changes_is_audited() -> None:
    """But for what queries and changes have in common: the specs of schedules."""
    queries = [method for method in METHODS.values() if not method.changes]
    common = {field.full_name for method in CHANGES for field in fields_of(method.input)}
    found = [(each.name, field.full_name) for each in queries for field in fields_of(each.input) if is_audited(field)]
    assert {name for name, field in found if field in common} == {"PreviewSchedule"}
    assert [item for item in found if item[1] not in common] == []


async def last(api: Api, parent: str = "-") -> audit_pb2.AuditEntry:
    """The newest entry."""
    return (await acme.entries(api, parent))[-1]


async def test_an_entry_says_what_was_done_to_whom(api: Api) -> None:
    user, _ = await acme.user(api, "ann"), await acme.organization(api)
    await api.members.CreateMember(member_pb2.CreateMemberRequest(parent="acme", user="@ann", role=ADMIN))
    assert (await last(api, "acme")).detail == "user=@ann role=ROLE_ADMIN"
    made = await api.api_keys.CreateApiKey(api_key_pb2.CreateApiKeyRequest(parent="acme", role=WRITE))
    assert (await last(api, "acme")).detail == f"role=ROLE_WRITE id={made.api_key.id}"
    await api.limits.UpdateLimit(limit_pb2.UpdateLimitRequest(parent="acme", name="organization.blobs", value=3))
    assert (await last(api, "acme")).detail == "name=organization.blobs value=3"
    await acme.update_user(api, "@ann", disabled=True)
    assert (await last(api)).detail == f"user=@ann update_mask=disabled disabled=True id={user.id}"


async def test_a_field_inside_a_message_of_a_request_is_shown(api: Api) -> None:
    session_id = await api.session(flows.steps(1))
    made = await ask(api, "StartExecution", session=session_id, spec={"definition": "workflow", "step_limit": 9})
    assert (await last(api, "acme")).detail == f"definition=workflow id={made.execution.id}"


async def test_a_strangers_field_is_shown(api: Api) -> None:
    await acme.organization(api)
    await acme.blob(api, "acme/notes", "stranger.notes")
    await ask(api, "PutNote", revision="acme/notes@draft", name="milk", text="Buy some.", create_only=True)
    assert (await last(api, "acme")).detail == "name=milk create_only=True"
