"""What holds for every RPC of the contract, walked from the descriptors."""

from __future__ import annotations

import re
from pathlib import Path

import flows
import grpc
import pytest
from blobhub.v1 import (
    access_pb2,
    api_key_pb2,
    blob_pb2,
    error_pb2,
    event_pb2,
    execution_pb2,
    organization_pb2,
    session_pb2,
)
from blobhub_server import errors
from blobhub_server.blobtypes.conformance import reason_of
from google.protobuf import message_factory
from methods import Method, served_methods
from served import Api, Served, connected

TESTS = Path(__file__).resolve().parent
UNBOUND = (access_pb2.PERMISSION_ANYONE, access_pb2.PERMISSION_CALLER, access_pb2.PERMISSION_USER)

each_method = pytest.mark.parametrize("method", served_methods(), ids=lambda method: method.path)


@each_method
def test_every_rpc_has_a_comment_with_its_errors(method: Method) -> None:
    assert re.search(r"^ ?Errors:$", method.comment, re.M), method.comment
    codes = re.findall(r"^ ?\* ([A-Z_]+): .+", method.comment, re.M)
    assert codes
    assert all(hasattr(grpc.StatusCode, code) for code in codes)


@each_method
def test_every_rpc_says_what_access_it_needs(method: Method) -> None:
    assert method.access.permission != access_pb2.PERMISSION_UNSPECIFIED
    if method.access.permission not in UNBOUND:
        assert method.access.field in method.input.fields_by_name
        assert method.access.resource


@each_method
def test_every_rpc_is_called_by_a_test(method: Method) -> None:
    calls = re.compile(rf"\.{method.name}\(")
    assert any(calls.search(path.read_text()) for path in TESTS.glob("test_*.py")) or any(
        calls.search(path.read_text()) for path in TESTS.glob("served.py")
    ), f"no test calls {method.path}"


def test_every_list_is_paged() -> None:
    for method in served_methods():
        if method.name.startswith("List") and "page_size" in method.input.fields_by_name:
            assert method.input.fields_by_name["page_token"]
            assert method.output.fields_by_name["next_page_token"]


def test_the_three_event_streams_have_the_same_first_two_fields() -> None:
    for message in (
        session_pb2.WatchSessionResponse,
        execution_pb2.WatchExecutionResponse,
        execution_pb2.RunExecutionResponse,
    ):
        fields = message.DESCRIPTOR.fields_by_number
        assert (fields[1].name, fields[1].message_type.full_name) == ("events", "blobhub.v1.Event")
        assert (fields[2].name, fields[2].message_type.full_name) == ("progress", "blobhub.v1.Progress")


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


def valid_request(method: Method, **known: str):
    """A request whose resource field names something, and whose other required fields hold something."""
    request = message_factory.GetMessageClass(method.input)()
    if method.access.permission not in UNBOUND:
        setattr(request, method.access.field, known[method.access.resource])
    return request


async def answer(api: Api, method: Method, request) -> grpc.aio.AioRpcError | None:
    data = request.SerializeToString()
    try:
        if method.server_streaming:
            call = api.channel.unary_stream(method.path)(data)
            async for _ in call:
                call.cancel()
                break
        else:
            await api.channel.unary_unary(method.path)(data)
    except grpc.aio.AioRpcError as error:
        return error
    return None


ABSENT = {
    "organization": "no-such",
    "blob": "no-such/blob",
    "revision": "no-such/blob@1",
    "scope": "no-such",
    "api_key": "01890000-0000-7000-8000-000000000000",
    "session": "01890000-0000-7000-8000-000000000000",
    "execution": "01890000-0000-7000-8000-000000000000",
}


@pytest.fixture
async def private(api: Api) -> dict[str, str]:
    """One private thing of every kind that access rules name."""
    session_id = await api.session(flows.steps(2))
    started = await api.executions.StartExecution(
        execution_pb2.StartExecutionRequest(session_id=session_id, definition="workflow")
    )
    key = await api.api_keys.CreateApiKey(api_key_pb2.CreateApiKeyRequest(scope="acme", role=access_pb2.ROLE_READ))
    return {
        "organization": "acme",
        "blob": "acme/pipeline",
        "revision": "acme/pipeline@draft",
        "scope": "acme/pipeline",
        "api_key": key.api_key.id,
        "session": session_id,
        "execution": started.execution.id,
    }


async def test_anonymous_callers_are_refused_on_all_but_public_reads(
    api: Api, anonymous: Api, private: dict[str, str]
) -> None:
    for method in served_methods():
        error = await answer(anonymous, method, valid_request(method, **private))
        if method.access.permission == access_pb2.PERMISSION_ANYONE:
            assert error is None, method.path
        elif method.access.public_read:
            assert error is not None, method.path
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED, method.path
        else:
            assert error is not None, method.path
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED, method.path


async def test_public_blobs_are_read_by_anybody(api: Api, anonymous: Api) -> None:
    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="open"))
    await api.blobs.CreateBlob(
        blob_pb2.CreateBlobRequest(
            organization="open", alias="flow", type="blobhub.compute.workflow", visibility="VISIBILITY_PUBLIC"
        )
    )
    await api.put(flows.steps(2), revision="open/flow@draft", alias="workflow")
    known = ABSENT | {"blob": "open/flow", "revision": "open/flow@draft"}
    for method in served_methods():
        request = valid_request(method, **known)
        if "definition" in method.input.fields_by_name and method.access.public_read:
            request.definition = "workflow"
        error = await answer(anonymous, method, request)
        allowed = method.access.permission == access_pb2.PERMISSION_ANYONE or method.access.public_read
        assert (error is None) == allowed, (method.path, error)


async def test_a_strangers_key_is_refused_with_the_same_words_for_absent_and_foreign(
    server: Served, api: Api, private: dict[str, str]
) -> None:
    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="elsewhere"))
    request = api_key_pb2.CreateApiKeyRequest(scope="elsewhere", role=access_pb2.ROLE_WRITE)
    key = (await api.api_keys.CreateApiKey(request)).key
    async with connected(server.address, key) as stranger:
        for method in served_methods():
            if method.access.permission in (access_pb2.PERMISSION_ANYONE, access_pb2.PERMISSION_CALLER):
                continue
            said = []
            for known in (private, ABSENT):
                error = await answer(stranger, method, valid_request(method, **known))
                assert error is not None, method.path
                assert error.code() is grpc.StatusCode.PERMISSION_DENIED, (method.path, error)
                assert reason_of(error) == "PERMISSION_DENIED"
                said.append((error.details(), list(error.trailing_metadata() or ())))
            assert said[0] == said[1], method.path
