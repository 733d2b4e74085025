"""Secrets go in everywhere they can, right and wrong; what comes out holds none. See also handover.py."""

from __future__ import annotations

import os
import uuid
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import forked
import grpc
import pytest
from blobhub.v1 import access_pb2, api_key_pb2, audit_pb2, blob_pb2, caller_pb2, credential_pb2, organization_pb2
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.platform.rules.api_key import make_secret, mask_keys
from blobhub_server.platform.store import api_key as api_key_store
from blobhub_server.platform.store import credential as credential_store
from disguises import Scanner
from google.protobuf import message, message_factory
from google.protobuf.struct_pb2 import Struct
from marked import ISSUED, made, planted, secret, secret_part
from methods import Method, served_methods
from outputs import Recording, leaks_in_outputs, size_of_outputs
from served import WORKFLOW, Api, Served, connected
from stored import leaks_in_tree
from waiting import DEADLINE_SECONDS

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
INVALID, INTERNAL = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL
OWNERS = ("acme", "acme/pipeline", "@me")
NOWHERE = "01890000-0000-7000-8000-000000000000"


@pytest.fixture
def watch(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[Recording]:
    """Looks right after the test whether its answers, errors and files hold a secret that it planted.

    Those of all other tests are looked for at the end of the run.
    """
    before = set(ISSUED)
    recording = Recording(tmp_path_factory.mktemp("outputs"))
    yield recording
    recording.close()
    scanner = Scanner({value: label for value, label in ISSUED.items() if value not in before})
    leaks = leaks_in_outputs(scanner, recording.folder) | leaks_in_tree(scanner, tmp_path)
    assert scanner.scanned > 0
    assert not leaks, "\n".join(map(str, sorted(leaks)))


@pytest.fixture
async def hub(watch: Recording, api: Api) -> Api:
    """A client with the administrator's key of a server with a blob, watched."""
    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))
    await api.blobs.CreateBlob(blob_pb2.CreateBlobRequest(organization="acme", alias="pipeline", type=WORKFLOW))
    return api


async def answered(call: Awaitable[Any]) -> str:
    """The name of the code that a call ends with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def audited(api: Api) -> list[audit_pb2.AuditEntry]:
    return list((await api.audit.ListAuditEntries(audit_pb2.ListAuditEntriesRequest(parent="-"))).entries)


# Keys


async def test_keys_of_every_scope_are_shown_when_they_are_made_and_never_again(server: Served, hub: Api) -> None:
    for scope in OWNERS:
        request = api_key_pb2.CreateApiKeyRequest(parent=scope, role=access_pb2.ROLE_WRITE, request_id=str(uuid.uuid4()))
        first = await hub.api_keys.CreateApiKey(request)
        assert secret_part(first.key) in ISSUED
        assert (await hub.api_keys.CreateApiKey(request)).key == ""
        id_ = first.api_key.id
        await hub.api_keys.UpdateApiKey(api_key_pb2.UpdateApiKeyRequest(api_key=id_, description="mine"))
        second = await hub.api_keys.RotateApiKey(api_key_pb2.RotateApiKeyRequest(api_key=id_))
        assert secret_part(second.key) in ISSUED
        for key in (first.key, second.key):
            async with connected(server.address, key) as other:
                await answered(other.callers.GetCaller(caller_pb2.GetCallerRequest()))
                await answered(other.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="acme/pipeline")))
        await hub.api_keys.GetApiKey(api_key_pb2.GetApiKeyRequest(api_key=id_))
        listed = await hub.api_keys.ListApiKeys(api_key_pb2.ListApiKeysRequest(parent=scope))
        assert {first.api_key.public_id, second.api_key.public_id} <= {key.public_id for key in listed.api_keys}
        await hub.api_keys.RevokeApiKey(api_key_pb2.RevokeApiKeyRequest(api_key=second.api_key.id))
    assert len(await audited(hub)) >= 4 * len(OWNERS)


@pytest.mark.either_database
async def test_wrong_keys_are_not_repeated(server: Served, hub: Api) -> None:
    whole = planted(make_secret(os.urandom), "a key that nobody made")
    wrong = [whole, whole[:-1], whole + "A", whole.swapcase(), secret("a key that is none"), server.admin_key[:-1]]
    async with connected(server.address, None) as other:
        for key in wrong:
            for header in (("authorization", f"Bearer {key}"), ("authorization", f"Basic {key}"), ("x-api-key", key)):
                call = other.callers.GetCaller(caller_pb2.GetCallerRequest(), metadata=[header])
                await expect_refusal(call, UNAUTHENTICATED, "UNAUTHENTICATED")
    entries = await audited(hub)
    assert sum(entry.code == "UNAUTHENTICATED" for entry in entries) == 2  # the rest cannot be keys


@pytest.mark.either_database
async def test_a_key_in_the_place_of_an_id_is_not_written_down(hub: Api) -> None:
    request = api_key_pb2.CreateApiKeyRequest(parent="acme", role=access_pb2.ROLE_READ)
    answer = await hub.api_keys.CreateApiKey(request)
    for call in (
        hub.api_keys.RevokeApiKey(api_key_pb2.RevokeApiKeyRequest(api_key=answer.key)),
        hub.api_keys.GetApiKey(api_key_pb2.GetApiKeyRequest(api_key=answer.key)),
        hub.organizations.GetOrganization(organization_pb2.GetOrganizationRequest(organization=answer.key)),
        hub.api_keys.RevokeApiKey(api_key_pb2.RevokeApiKeyRequest(api_key=NOWHERE, request_id=answer.key)),
    ):
        assert await answered(call) in ("PERMISSION_DENIED", "INVALID_ARGUMENT")
    assert [entry for entry in await audited(hub) if entry.code != "OK"] == [], "what has no form is not recorded"


async def test_a_request_id_with_a_nul_is_refused_for_its_form(hub: Api) -> None:
    request = api_key_pb2.RevokeApiKeyRequest(api_key=NOWHERE, request_id="\0")
    assert await answered(hub.api_keys.RevokeApiKey(request)) == "INVALID_ARGUMENT"


def test_without_its_secret_a_key_can_still_be_told() -> None:
    key = make_secret(os.urandom)
    assert mask_keys(f"acme/{key}@1") == f"acme/{key[:17]}…@1"
    assert mask_keys("acme/pipeline@draft") == "acme/pipeline@draft"


# Credentials


def struct(value: Any) -> Struct:
    body = Struct()
    body.update({"token": value, "nested": {"list": [value]}})
    return body


def creation(owner: str, value: str, **fields: Any) -> credential_pb2.CreateCredentialRequest:
    fields = {"alias": "signing", "type": "test", "body": struct(value)} | fields
    return credential_pb2.CreateCredentialRequest(parent=owner, **fields)


async def test_credentials_of_every_owner_are_never_shown(hub: Api) -> None:
    for owner in OWNERS:
        request = creation(owner, secret("a credential"), request_id=str(uuid.uuid4()))
        first = (await hub.credentials.CreateCredential(request)).credential
        assert (await hub.credentials.CreateCredential(request)).credential == first
        assert (
            await answered(hub.credentials.CreateCredential(creation(owner, secret("the same again")))) == "ALREADY_EXISTS"
        )
        reused = creation(owner, secret("another body"), request_id=request.request_id)
        assert await answered(hub.credentials.CreateCredential(reused)) == "ALREADY_EXISTS"
        change = credential_pb2.UpdateCredentialRequest(credential=first.id, body=struct(secret("a change")))
        await hub.credentials.UpdateCredential(change)
        stale = credential_pb2.UpdateCredentialRequest(
            credential=first.id, body=struct(secret("a late change")), etag=first.etag
        )
        assert await answered(hub.credentials.UpdateCredential(stale)) == "ABORTED"
        await hub.credentials.GetCredential(credential_pb2.GetCredentialRequest(credential=first.id))
        await hub.credentials.ListCredentials(credential_pb2.ListCredentialsRequest(parent=owner))
    await hub.credentials.ResolveCredential(credential_pb2.ResolveCredentialRequest(blob="acme/pipeline", alias="signing"))
    await hub.credentials.DeleteCredential(credential_pb2.DeleteCredentialRequest(credential=first.id))
    assert len(await audited(hub)) >= 5 * len(OWNERS)


@pytest.mark.either_database
async def test_credentials_that_are_refused_are_not_repeated(hub: Api, anonymous: Api) -> None:
    value = secret("a credential that is refused")
    wrong = [
        creation("acme", value, alias="not an alias"),
        creation("acme", value, type="NOT A TYPE"),
        creation("acme", value, description="x" * 300),
        creation("acme", value, request_id="no id"),
        creation("acme", value, body=struct(value * 500)),
        creation("acme", value, body=struct(float("nan"))),
        creation("acme/nothing", value),
        creation("not a reference", value),
    ]
    for request in wrong:
        code = await answered(hub.credentials.CreateCredential(request))
        assert code in ("INVALID_ARGUMENT", "NOT_FOUND"), request
        assert await answered(anonymous.credentials.CreateCredential(request)) in ("INVALID_ARGUMENT", "UNAUTHENTICATED")


async def test_an_exception_that_holds_a_credential_tells_the_caller_nothing(
    hub: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = made()  # not of those that no log may hold: it is the exception's text that has it
    asked = creation("acme", value)

    async def fail(*_args: Any) -> None:
        raise RuntimeError(f"cannot insert {asked}")

    monkeypatch.setattr(credential_store, "insert", fail)
    error = await expect_refusal(hub.credentials.CreateCredential(asked), INTERNAL, "INTERNAL")
    said = f"{error.details()} {error.trailing_metadata()}"
    assert not Scanner({value: "credential"}).data("error", said.encode())


async def test_an_exception_while_a_key_is_stored_does_not_hold_the_key(hub: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even in the log, which tells the exception: what is stored of a key does not have the key in it."""
    keys = []

    async def fail(_tx: Any, record: Any) -> None:
        keys.append(record)
        raise RuntimeError(f"cannot insert {record}")

    def issue(entropy: Any) -> str:
        return planted(make_secret(entropy), "a key that could not be stored")

    monkeypatch.setattr(api_key_store, "insert", fail)
    monkeypatch.setattr("blobhub_server.platform.rules.api_key.make_secret", issue)
    request = api_key_pb2.CreateApiKeyRequest(parent="acme", role=access_pb2.ROLE_READ)
    await expect_refusal(hub.api_keys.CreateApiKey(request), INTERNAL, "INTERNAL")
    assert len(keys) == 1


# Everything else


@pytest.mark.either_database
async def test_bytes_that_are_no_message_are_not_repeated(hub: Api) -> None:
    value = secret("in bytes that are no message").encode()
    for method in served_methods():
        make = hub.channel.unary_stream if method.server_streaming else hub.channel.unary_unary
        call = make(method.path)(b"\xff" + value)
        with pytest.raises(grpc.aio.AioRpcError):
            await (call.read() if method.server_streaming else call)


KNOWN = {
    "organization": "acme",
    "blob": "acme/pipeline",
    "revision": "acme/pipeline@draft",
    "parent": "acme",
    "resource": "acme",
    "user": "@me",
}


def fill(into: message.Message, value: str, depth: int = 0) -> None:
    """Put a value wherever a message takes a text, bytes or JSON."""
    for field in into.DESCRIPTOR.fields:
        inner = field.message_type
        if inner is None and field.cpp_type != field.CPPTYPE_STRING:
            continue
        one: Any = value.encode() if field.type == field.TYPE_BYTES else value
        if inner is not None and inner.GetOptions().map_entry:
            if inner.full_name == "google.protobuf.Struct.FieldsEntry":
                into.fields[value].string_value = value
        elif inner is not None and depth < 4:
            fill(getattr(into, field.name).add() if field.is_repeated else getattr(into, field.name), value, depth + 1)
        elif inner is None and field.is_repeated:
            getattr(into, field.name).append(one)
        elif inner is None:
            setattr(into, field.name, one)


def requests_of(method: Method, value: str) -> Iterator[message.Message]:
    """Requests with a value everywhere, then everywhere but where the resource is named, then in one field at a time, so
    that one complaint does not keep others from being made.
    """
    rules = (method.access, *method.access.also)
    whole = message_factory.GetMessageClass(method.input)()
    fill(whole, value)
    yield whole
    for rule in rules:
        if rule.resource in KNOWN:
            setattr(whole, rule.field, KNOWN[rule.resource])
    yield whole
    named, others = {rule.field for rule in rules}, set(method.input.fields_by_name)
    for field in others - named:
        alone = type(whole)()
        alone.CopyFrom(whole)
        for other in others - named - {field}:
            alone.ClearField(other)
        yield alone


@pytest.mark.either_database
async def test_no_error_repeats_what_a_request_holds(hub: Api, watch: Recording) -> None:
    value = made()  # stored where texts are stored; only errors are looked through for it
    before = size_of_outputs(watch.folder, "errors")
    for method in served_methods():
        make = hub.channel.unary_stream if method.server_streaming else hub.channel.unary_unary
        for request in requests_of(method, value):
            call = make(method.path)(request.SerializeToString(), timeout=DEADLINE_SECONDS)
            await answered(call.read() if method.server_streaming else call)
            if method.server_streaming:
                call.cancel()
    assert size_of_outputs(watch.folder, "errors") > before + 10_000
    leaks = leaks_in_outputs(Scanner({value: "the request's text"}), watch.folder)
    assert not {leak for leak in leaks if leak.where == "errors"}


def test_a_start_that_fails_does_not_repeat_the_databases_password(tmp_path: Path) -> None:
    password = secret("a database's password")[12:]
    url = f"postgresql://blobhub:{planted(password, 'a database password')}@127.0.0.1:1/blobhub"
    environment = os.environ | {"BLOBHUB_DATA_DIR": str(tmp_path), "BLOBHUB_DATABASE_URL": url}
    done = forked.run("serve", env=environment)
    assert done.returncode != 0
    assert not Scanner(ISSUED).data("output", f"{done.stdout}{done.stderr}".encode())
