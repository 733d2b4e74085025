"""What holds for every RPC of the contract, walked from the descriptors."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import grpc
import pytest
from blobhub.v1 import access_pb2, error_pb2, event_pb2
from blobhub_server import errors
from blobhub_server.blobtypes.registry import BlobTypes
from google.protobuf.descriptor import EnumDescriptor
from methods import Method, served_methods

TESTS = Path(__file__).resolve().parent
BOUND = (access_pb2.PERMISSION_READ, access_pb2.PERMISSION_WRITE, access_pb2.PERMISSION_ADMIN)

IMPLIED = {
    "request_id": "ALREADY_EXISTS",
    "etag": "ABORTED",
    "page_token": "INVALID_ARGUMENT",
    "replay_only": "UNAVAILABLE",
}
"""What a request with such a field can be answered with."""

SERVERS = {"api_key", "credential", "execution", "firing", "lease", "model_upload", "operation", "user"}
"""Kinds whose references name no parent, so that the server is it, which its administrators alone may read."""

UNSEEN = "or it names nothing that the caller may see, in a parent that they may read."
ADMINISTRATORS = "there is no such thing, which only administrators of the server are told."
"""What every method says of NOT_FOUND that refers to other kinds, and to those."""

LIMITED = {f"Create{noun}" for noun in ("ApiKey", "Blob", "Credential", "Member", "Metadata", "Revision", "Session")}
LIMITED |= {"CreateOrganization", "CreateSchedule", "RotateApiKey", "PutDefinition", "StartExecution", "RunExecution"}
LIMITED |= {
    "PutSessionObject",
    "SendSignal",
    "SignalExecution",
    "PutModel",
    "UploadModel",
    "CreateModelUpload",
    "CompleteModelUpload",
}
"""Methods that add to what is counted, which the tests of limits go through."""
BUSY = {"Infer", "StreamInfer", "CompleteTask", "FailTask"}
"""Methods that wait for something else than the server, or tell it something, which may have no room."""
ANSWERING = {"DownloadModel", "LeaseTasks", "StreamInfer", "StreamQueue"}
"""Methods whose answer is a stream, and that follow no log."""

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
    if method.access.field:
        implied |= {"NOT_FOUND", "PERMISSION_DENIED"}
    implied |= {code for field, code in IMPLIED.items() if field in fields}
    assert implied <= listed, f"{method.path} does not list {sorted(implied - listed)}"


@each_method
def test_every_rpc_tells_in_the_same_words_what_is_not_found(method: Method) -> None:
    """And says that things are renamed where they have aliases, or are named by those of what they are in."""
    if not method.access.field:
        return
    (said,) = re.findall(r"^ ?\* NOT_FOUND: (.+(?:\n {3}.+)*)", method.comment, re.M)
    said = re.sub(r"\s+", " ", said)
    if method.access.resource in SERVERS:
        assert said.endswith(ADMINISTRATORS)
    else:
        assert said.endswith(f"; {UNSEEN}")
        assert "renamed" in said
        assert "administrators" not in said


def test_every_rpc_that_a_limit_may_refuse_says_so() -> None:
    listing = {method.name for method in served_methods() if "* RESOURCE_EXHAUSTED: " in method.comment}
    assert listing == LIMITED | BUSY


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
    watches = [method for method in served_methods() if method.server_streaming and method.name not in ANSWERING]
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
        assert family in ("flow", "processor", "scope", "session")
        assert what


def subclasses(kind: type) -> set[type]:
    return {kind} | {deeper for child in kind.__subclasses__() for deeper in subclasses(child)}


def enums() -> dict[str, EnumDescriptor]:
    """The enums of error reasons, by domain."""
    types = [item.type for item in BlobTypes.load().all()]
    return {"blobhub": error_pb2.ErrorReason.DESCRIPTOR} | {item.name: item.reasons for item in types if item.reasons}


def classes(domain: str) -> dict[str, type[errors.BlobHubError]]:
    """The classes of errors of a domain that have a reason of their own, by reason."""
    every = subclasses(errors.BlobHubError) - {errors.BlobHubError}
    own = [kind for kind in every if kind.domain == domain and "reason" in vars(kind)]
    found = {kind.reason: kind for kind in own}
    assert len(found) == len(own), "two classes share a reason"
    return found


def test_every_domain_is_the_platforms_or_a_types() -> None:
    assert {kind.domain for kind in subclasses(errors.BlobHubError)} == enums().keys()


@pytest.mark.parametrize("domain", sorted(enums()))
def test_every_error_reason_has_one_class_and_the_code_its_comment_says(domain: str) -> None:
    enum = enums()[domain]
    roots = (TESTS.parent / "protos", TESTS / "stranger" / "protos")
    (proto,) = (root / enum.file.name for root in roots if (root / enum.file.name).exists())
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    comment = rf"// ([A-Z_]+)\. [^\n]*\n(?:\s*//[^\n]*\n)*\s*{prefix}([A-Z_]+) = \d+;"
    documented = {name: code for code, name in re.findall(comment, proto.read_text())}
    assert documented.keys() == {value.name.removeprefix(prefix) for value in enum.values[1:]}
    assert {reason: kind.code for reason, kind in classes(domain).items()} == documented


def test_every_error_is_raised_somewhere() -> None:
    sources = [*(TESTS.parent / "server").rglob("*.py"), *(TESTS / "stranger" / "stranger_notes").rglob("*.py")]
    nodes = [node for path in sources for node in ast.walk(ast.parse(path.read_text()))]
    used = {node.id for node in nodes if isinstance(node, ast.Name)} | {
        node.attr for node in nodes if isinstance(node, ast.Attribute)
    }
    assert {kind.__name__ for domain in enums() for kind in classes(domain).values()} <= used
