"""What holds for every RPC of the contract, walked from the descriptors."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest
from blobhub.v1 import access_pb2, error_pb2, event_pb2
from blobhub_server import errors
from methods import Method, served_methods

TESTS = Path(__file__).resolve().parent
BOUND = (access_pb2.PERMISSION_READ, access_pb2.PERMISSION_WRITE, access_pb2.PERMISSION_ADMIN)

RENAMEABLE = {"organization", "blob", "revision", "scope", "target", "owner", "audit_scope"}
"""Kinds of resource that references can name by an alias, which may have been given up."""

IMPLIED = {
    "request_id": "ALREADY_EXISTS",
    "etag": "ABORTED",
    "page_token": "INVALID_ARGUMENT",
    "follow": "UNAVAILABLE",
}
"""What a request with such a field can be answered with."""

LIMITED = {f"Create{noun}" for noun in ("ApiKey", "Blob", "Credential", "Member", "Metadata", "Revision", "Session")}
LIMITED |= {"CreateOrganization", "RotateApiKey", "PutDefinition", "StartExecution", "RunExecution"}
"""Methods that add to what is counted, which the tests of limits go through."""

each_method = pytest.mark.parametrize("method", served_methods(), ids=lambda method: method.path)


@each_method
def test_every_rpc_has_a_comment_with_its_errors(method: Method) -> None:
    assert re.search(r"^ ?Errors:$", method.comment, re.M), method.comment
    codes = re.findall(r"^ ?\* ([A-Z_]+): .+", method.comment, re.M)
    assert codes
    assert all(hasattr(grpc.StatusCode, code) for code in codes)


@each_method
def test_every_rpc_lists_the_errors_that_follow_from_its_form(method: Method) -> None:
    listed = set(re.findall(r"^ ?\* ([A-Z_]+): ", method.comment, re.M))
    fields, permission = method.input.fields_by_name, method.access.permission
    implied = {"UNAUTHENTICATED"}
    if permission not in (access_pb2.PERMISSION_ANYONE, access_pb2.PERMISSION_CALLER):
        implied.add("PERMISSION_DENIED")
    if {rule.resource for rule in (method.access, *method.access.also)} & RENAMEABLE:
        implied.add("NOT_FOUND")
    implied |= {code for field, code in IMPLIED.items() if field in fields}
    assert implied <= listed, f"{method.path} does not list {sorted(implied - listed)}"


def test_every_rpc_that_a_limit_may_refuse_says_so() -> None:
    listing = {method.name for method in served_methods() if "* RESOURCE_EXHAUSTED: " in method.comment}
    assert listing == LIMITED


@each_method
def test_every_rpc_says_what_access_it_needs(method: Method) -> None:
    assert method.access.permission != access_pb2.PERMISSION_UNSPECIFIED
    if method.access.permission in BOUND:
        assert method.access.field in method.input.fields_by_name
        assert method.access.resource


@each_method
def test_every_rpc_is_called_by_a_test(method: Method) -> None:
    calls = re.compile(rf"\.{method.name}\(")
    assert any(calls.search(path.read_text()) for path in TESTS.glob("*.py")), f"no test calls {method.path}"


def test_every_list_is_paged() -> None:
    for method in served_methods():
        if method.name.startswith("List") and "page_size" in method.input.fields_by_name:
            assert method.input.fields_by_name["page_token"]
            assert method.output.fields_by_name["next_page_token"]


def test_every_watch_answers_batches_and_progress_in_the_same_two_fields() -> None:
    """What `rpc.watch.pack` counts on."""
    watches = [method for method in served_methods() if method.server_streaming]
    assert {method.name for method in watches} >= {"RunExecution", "WatchAuditEntries", "WatchBlob", "WatchSession"}
    for method in watches:
        fields = method.output.fields_by_number
        assert fields[1].is_repeated, method.path
        assert fields[1].message_type is not None, method.path
        assert (fields[2].name, fields[2].message_type.full_name) == ("progress", "blobhub.v1.Progress"), method.path


def test_the_streams_of_executions_and_sessions_have_the_same_events() -> None:
    streams = [method for method in served_methods() if method.name in ("RunExecution", "WatchExecution", "WatchSession")]
    for method in streams:
        field = method.output.fields_by_number[1]
        assert (field.name, field.message_type.full_name) == ("events", "blobhub.v1.Event")


def test_every_event_type_is_its_payloads_name() -> None:
    payloads = event_pb2.Event.DESCRIPTOR.oneofs_by_name["payload"].fields
    for field in payloads:
        family, _, what = field.name.partition("_")
        assert family in ("flow", "processor", "session")
        assert what


def subclasses(kind: type) -> set[type]:
    return {kind} | {deeper for child in kind.__subclasses__() for deeper in subclasses(child)}


def test_every_error_reason_has_one_class_and_the_code_its_comment_says() -> None:
    proto = (TESTS.parent / "protos" / "blobhub" / "v1" / "error.proto").read_text()
    documented = {
        name: code
        for code, name in re.findall(r"// ([A-Z_]+)\. [^\n]*\n(?:\s*//[^\n]*\n)*\s*ERROR_REASON_([A-Z_]+) = \d+;", proto)
    }
    declared = {
        name.removeprefix("ERROR_REASON_")
        for name in error_pb2.ErrorReason.keys()  # noqa: SIM118  an enum wrapper, not a dict
    } - {"UNSPECIFIED"}
    classes = {kind.reason: kind for kind in subclasses(errors.BlobHubError) - {errors.BlobHubError}}
    assert len(classes) == len(subclasses(errors.BlobHubError)) - 1, "two classes share a reason"
    assert classes.keys() == declared == documented.keys()
    for reason, kind in classes.items():
        assert kind.code == documented[reason], reason
