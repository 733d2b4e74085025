"""Refusals: what callers are told of what they may not have, and which of several errors wins."""

from __future__ import annotations

import uuid

import acme
import flows
import grpc
import pytest
from acme import PUBLIC, READ
from blobhub.v1 import access_pb2, alias_pb2
from blobhub_server.blobtypes.conformance import expect_refusal
from buf.validate import validate_pb2
from calling import METHODS, ask, request_of, send
from methods import Method
from served import Api, Served, connected

pytestmark = pytest.mark.either_database

DENIED = grpc.StatusCode.PERMISSION_DENIED
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
NOWHERE = "01890000-0000-7000-8000-000000000000"


async def test_in_a_public_organization_a_private_blob_is_like_none(server: Served, api: Api) -> None:
    await acme.organization(api, visibility=PUBLIC)
    await acme.blob(api)
    async with acme.person(server, api, "ann") as ann:
        for call in (acme.get_blob, acme.delete_blob, acme.get_revision):
            there, absent = [
                await expect_refusal(call(ann, reference), NOT_FOUND, "NOT_FOUND")
                for reference in ("acme/pipeline", "acme/absent")
            ]
            assert there.details() == "no such blob: acme/pipeline; ListBlobs lists the blobs of acme that you may see"
            assert absent.details() == there.details().replace("pipeline", "absent")


async def test_without_a_key_every_refusal_says_that_none_came(api: Api, anonymous: Api) -> None:
    await acme.organization(api, visibility=PUBLIC)
    await acme.blob(api, visibility=PUBLIC)
    await acme.blob(api, "acme/private")
    for call in (
        acme.update_blob(anonymous, description="x"),
        acme.get_blob(anonymous, "acme/private"),
        acme.get_blob(anonymous, "acme/absent"),
        acme.get_blob(anonymous, str(uuid.uuid4())),
        acme.get_revision(anonymous, "acme/pipeline@7"),
    ):
        error = await expect_refusal(call, UNAUTHENTICATED, "UNAUTHENTICATED")
        assert "no key came with this call" in error.details()


async def test_who_sees_a_thing_is_told_which_role_they_lack(server: Served, api: Api) -> None:
    await acme.organization(api)
    await acme.blob(api)
    async with acme.person(server, api, "ann", ("acme", READ)) as reader:
        error = await expect_refusal(acme.delete_blob(reader), DENIED, "PERMISSION_DENIED")
        assert error.details() == "this needs the role `admin` on acme/pipeline"


async def test_who_reads_a_blob_is_told_its_last_snapshot(server: Served, api: Api) -> None:
    await api.session(flows.steps(1))
    async with acme.person(server, api, "ann", ("acme/pipeline", READ)) as reader:
        error = await expect_refusal(acme.get_revision(reader, "acme/pipeline@3"), NOT_FOUND, "NOT_FOUND")
        assert error.details() == "no such revision: acme/pipeline@3; there is no snapshot yet"
        await api.publish()
        error = await expect_refusal(acme.get_revision(reader, "acme/pipeline@3"), NOT_FOUND, "NOT_FOUND")
        assert error.details() == "no such revision: acme/pipeline@3; the last snapshot is @1"


async def test_a_version_that_a_blob_lacks_is_told_with_the_blob_and_what_it_has(server: Served, api: Api) -> None:
    session = await api.session(flows.steps(1))
    blob = (await ask(api, "GetSession", session=session)).session.blob_id
    cases = {
        "latest": "acme/pipeline@latest; there is no commit or snapshot yet",
        "9": "acme/pipeline@9; there is no snapshot yet",
        NOWHERE: f"acme/pipeline@{NOWHERE}; there is no snapshot yet",
    }
    for version, said in cases.items():
        for call in (
            acme.get_revision(api, f"acme/pipeline@{version}"),
            ask(api, "CreateRevision", blob="acme/pipeline", base_revision=version),
            acme.update_blob(api, default_revision=version),
        ):
            error = await expect_refusal(call, NOT_FOUND, "NOT_FOUND")
            assert error.details() == f"no such revision: {said}"
    await api.publish()
    error = await expect_refusal(ask(api, "CreateRevision", blob=blob, base_revision="9"), NOT_FOUND, "NOT_FOUND")
    assert error.details() == f"no such revision: {blob}@9; the last snapshot is @1"


async def test_what_a_revision_lacks_is_told_with_the_method_that_lists_what_it_has(server: Served, api: Api) -> None:
    await api.session(flows.steps(1))
    async with acme.person(server, api, "ann", ("acme/pipeline", READ)) as reader:
        for method, field in (("GetSession", "session"), ("WatchSession", "session"), ("GetDefinition", "definition")):
            call = send(reader, METHODS[method], request_of(METHODS[method], **{field: "acme/pipeline@draft/nope"}))
            error = await expect_refusal(call, NOT_FOUND, "NOT_FOUND")
            words = f"{field}: acme/pipeline@draft/nope; List{field.title()}s lists the {field}s of acme/pipeline@draft"
            assert error.details() == f"no such {words}"


async def test_a_session_is_like_none_to_who_sees_its_public_blob_and_not_its_sessions(server: Served, api: Api) -> None:
    await acme.organization(api, visibility=PUBLIC)
    await acme.blob(api, visibility=PUBLIC)
    await acme.blob(api, "acme/private")
    for blob in ("pipeline", "private"):
        await ask(api, "CreateSession", revision=f"acme/{blob}@draft", alias="there")
    async with acme.person(server, api, "ann") as outsider:
        for blob, instead in (
            ("pipeline", "ListSessions lists the sessions of acme/pipeline@draft to those who hold a role on it"),
            ("private", "ListBlobs lists the blobs of acme that you may see"),
            ("absent", "ListBlobs lists the blobs of acme that you may see"),
        ):
            for reference in (f"acme/{blob}@draft/there", f"acme/{blob}@draft/nope"):
                error = await expect_refusal(ask(outsider, "GetSession", session=reference), NOT_FOUND, "NOT_FOUND")
                assert error.details() == f"no such session: {reference}; {instead}"


async def test_a_lone_id_of_nothing_is_told_to_administrators_alone(server: Served, api: Api) -> None:
    await api.session(flows.steps(1))
    async with acme.person(server, api, "ann", ("acme/pipeline", READ)) as reader:
        for method, field in (("GetSession", "session"), ("GetDefinition", "definition"), ("GetExecution", "execution")):
            await expect_refusal(ask(reader, method, **{field: NOWHERE}), DENIED, "PERMISSION_DENIED")
            await expect_refusal(ask(api, method, **{field: NOWHERE}), NOT_FOUND, "NOT_FOUND")


async def test_a_session_is_told_as_renamed_with_its_blob(api: Api) -> None:
    await api.session(flows.steps(1))
    await acme.update_blob(api, alias="flow")
    for method in ("GetSession", "CloseSession", "ListEvents", "ListSessionObjects"):
        await expect_refusal(ask(api, method, session="acme/pipeline@draft/intake"), NOT_FOUND, "RENAMED")


async def test_a_blob_type_that_is_not_installed_is_told_with_those_that_are(api: Api) -> None:
    await acme.organization(api)
    for type_, said in (("blobhub.no.such", "blobhub.no.such"), ("No such type", "of that name")):
        error = await expect_refusal(acme.blob(api, type_=type_), INVALID, "UNKNOWN_BLOB_TYPE")
        assert error.details().startswith(f"no blob type {said} is installed; there is ")
        assert "blobhub.compute.workflow" in error.details()


async def test_json_texts_and_page_tokens_are_read_after_access(server: Served, api: Api) -> None:
    session, revision = await api.session(flows.steps(1)), "acme/pipeline@draft"
    asked: dict[str, tuple[str, dict[str, str]]] = {
        "PutSessionObject": ("INVALID_VALUE", {"session": session, "alias": "a", "value_json": "{"}),
        "PutDefinition": ("INVALID_DEFINITION", {"revision": revision, "alias": "a", "document": "{]"}),
        "ListSessions": ("INVALID_PAGE_TOKEN", {"blob": "acme/pipeline", "page_token": "none"}),
    }
    async with acme.person(server, api, "ann") as outsider:
        for method, (reason, fields) in asked.items():
            await expect_refusal(ask(outsider, method, **fields), DENIED, "PERMISSION_DENIED")
            await expect_refusal(ask(api, method, **fields), INVALID, reason)


async def test_of_several_errors_the_first_in_order_wins(server: Served, api: Api, anonymous: Api) -> None:
    """One thing is mended at a time; what comes later never shows before."""
    await acme.organization(api)
    await acme.blob(api)
    broken = {"request_id": "not-a-uuid", "etag": "stale"}
    async with connected(server.address, "bhk_nonsense") as malformed:
        send = malformed.channel.unary_unary("/blobhub.v1.BlobService/DeleteBlob")
        await expect_refusal(send(b"\xff"), UNAUTHENTICATED, "UNAUTHENTICATED")
    async with acme.person(server, api, "ann", ("acme", READ)) as reader:
        send = reader.channel.unary_unary("/blobhub.v1.BlobService/DeleteBlob")
        await expect_refusal(send(b"\xff"), INVALID, "UNDECODABLE_REQUEST")
        for caller in (anonymous, reader):
            await expect_refusal(acme.delete_blob(caller, "no reference!", **broken), INVALID, "INVALID_REQUEST")
            await expect_refusal(acme.delete_blob(caller, "no reference!", etag="stale"), INVALID, "INVALID_REFERENCE")
        await expect_refusal(acme.delete_blob(anonymous, etag="stale"), UNAUTHENTICATED, "UNAUTHENTICATED")
        await expect_refusal(acme.delete_blob(reader, etag="stale"), DENIED, "PERMISSION_DENIED")
    used = str(uuid.uuid4())
    await acme.update_blob(api, description="x", request_id=used)
    await expect_refusal(
        acme.update_blob(api, "acme/absent", description="x", request_id=used),
        grpc.StatusCode.ALREADY_EXISTS,
        "REQUEST_ID_REUSED",
    )
    await expect_refusal(acme.delete_blob(api, etag="stale"), grpc.StatusCode.ABORTED, "STALE_ETAG")


FORMS = (alias_pb2.alias, alias_pb2.within, alias_pb2.alias_or_id, alias_pb2.alias_or_within)
REFERRING = [
    (method, field.name)
    for method in METHODS.values()
    for field in method.input.fields
    if field.GetOptions().Extensions[access_pb2.reference]
]
"""The fields that refer to something and that no access option names."""


@pytest.mark.parametrize(("method", "field"), REFERRING, ids=lambda it: it if isinstance(it, str) else it.name)
async def test_the_form_of_every_reference_is_checked_before_access(
    server: Served, api: Api, anonymous: Api, method: Method, field: str
) -> None:
    mask = {"UpdateMember": "role", "UpdateBlob": "description", "UpdateUser": "disabled"}
    valid = {
        "parent": "acme",
        "user": "@ann",
        "blob": "acme/pipeline",
        "role": READ,
        "update_mask": {"paths": [mask.get(method.name, "")]},
        "description": "x",
    }
    given = {name: value for name, value in valid.items() if name in method.input.fields_by_name} | {field: "no reference!"}
    async with acme.person(server, api, "ann") as ann:
        for caller in (ann, anonymous):
            error = await expect_refusal(send(caller, method, request_of(method, **given)), INVALID, "INVALID_REFERENCE")
            assert error.details().startswith(f"{field}: not a reference; expected ")


def test_every_field_that_refers_has_a_form_that_is_checked_before_access() -> None:
    """It is in the access option, says `reference`, or has a constraint that says its form."""
    nouns = {"user", "parent", *(kind for method in METHODS.values() for kind in _nouns(method))}
    for method in METHODS.values():
        named = {method.access.field, *(also.field for also in method.access.also)}
        for field in method.input.fields:
            if field.type != field.TYPE_STRING or field.is_repeated:
                continue
            if field.name in nouns or field.name.rpartition("_")[2] in nouns:
                said = field.GetOptions().Extensions[access_pb2.reference]
                rules = field.GetOptions().Extensions[validate_pb2.field].string
                form = rules.uuid or any(rules.Extensions[rule] for rule in FORMS)
                assert field.name in named or said or form, field.full_name


def _nouns(method: Method) -> set[str]:
    return {also.resource for also in (method.access, *method.access.also)} & set(method.input.fields_by_name)


async def test_a_new_alias_is_told_to_who_sees_the_thing_and_to_nobody_else(server: Served, api: Api) -> None:
    await acme.organization(api, visibility=PUBLIC)
    await acme.blob(api)
    await acme.update_blob(api, alias="flow")
    async with acme.person(server, api, "ann") as outsider, acme.person(server, api, "bob", ("acme/flow", READ)) as reader:
        await expect_refusal(acme.delete_blob(reader), NOT_FOUND, "RENAMED")
        error = await expect_refusal(acme.delete_blob(outsider), NOT_FOUND, "NOT_FOUND")
        assert "flow" not in error.details()


async def test_who_may_not_see_a_blob_is_entered_as_who_asks_for_none(server: Served, api: Api) -> None:
    """Both are NOT_FOUND in an organization that everybody reads, and the entry takes as long to write as the other."""
    await acme.organization(api, visibility=PUBLIC)
    hidden = await acme.blob(api)
    async with acme.person(server, api, "ann") as ann:
        before = len(await acme.entries(api))
        for reference in ("acme/pipeline", "acme/absent"):
            await expect_refusal(acme.get_blob(ann, reference), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    there, absent = (await acme.entries(api))[before:]
    assert (there.code, there.blob_id, there.resource) == ("NOT_FOUND", hidden.id, "acme/pipeline")
    assert (absent.code, absent.blob_id, absent.resource) == ("NOT_FOUND", "", "acme/absent")
