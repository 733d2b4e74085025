"""Credentials: kept, used, and never shown; sealed, so that what was tampered with is refused."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import uuid
from collections.abc import Sequence
from typing import Any

import grpc
import marked
import pytest
import sqlalchemy as sa
from blobhub.v1 import api_key_pb2, blob_pb2, credential_pb2, organization_pb2
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.db.postgresql import make_engine
from blobhub_server.db.schema import metadata
from blobhub_server.platform.rules import credential as rules
from blobhub_server.platform.store.credential import credentials
from blobhub_server.start import StartError
from databases import collected
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from served import Api, Served, connected, served
from stranger.notes.v1 import notes_pb2, notes_pb2_grpc

INVALID, DENIED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED
EXISTS, ABSENT, LOST = grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DATA_LOSS
TEXT = "pay 12 to Anna"


@pytest.fixture
async def hub(api: Api) -> Api:
    """An organization `acme` with two blobs of notes, each with the same note."""
    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))
    for alias in ("notes", "more"):
        request = blob_pb2.CreateBlobRequest(organization="acme", alias=alias, type="stranger.notes")
        await api.blobs.CreateBlob(request)
        note = notes_pb2.PutNoteRequest(revision=f"acme/{alias}@draft", name="first", text=TEXT)
        await notes_pb2_grpc.NotesServiceStub(api.channel).PutNote(note)
    return api


def struct(body: dict[str, Any]) -> Struct:
    made = Struct()
    made.update(body)
    return made


async def create(api: Api, owner: str, secret: str, alias: str = "signing", **fields: Any) -> credential_pb2.Credential:
    request = credential_pb2.CreateCredentialRequest(
        parent=owner, alias=alias, type="test", body=struct({"key": secret}), **fields
    )
    return clean(await api.credentials.CreateCredential(request), secret).credential


async def update(api: Api, credential: credential_pb2.Credential, **fields: Any) -> credential_pb2.Credential:
    request = credential_pb2.UpdateCredentialRequest(credential=credential.id, **fields)
    return clean(await api.credentials.UpdateCredential(request)).credential


def clean(answer: Any, *secrets: str) -> Any:
    """The answer, which shows no secret."""
    assert isinstance(answer, Message)
    for secret in (*secrets, marked.MARKER):
        assert secret.encode() not in answer.SerializeToString()
    return answer


async def get(api: Api, id_: str) -> credential_pb2.Credential:
    return clean(await api.credentials.GetCredential(credential_pb2.GetCredentialRequest(credential=id_))).credential


async def resolve(api: Api, blob: str, alias: str = "signing") -> credential_pb2.Credential:
    request = credential_pb2.ResolveCredentialRequest(blob=blob, alias=alias)
    return clean(await api.credentials.ResolveCredential(request)).credential


async def aliases(api: Api, owner: str) -> list[str]:
    answer = await api.credentials.ListCredentials(credential_pb2.ListCredentialsRequest(parent=owner))
    return [credential.alias for credential in clean(answer).credentials]


async def delete(api: Api, id_: str, **fields: str) -> None:
    await api.credentials.DeleteCredential(credential_pb2.DeleteCredentialRequest(credential=id_, **fields))


async def sign(api: Api, blob: str = "acme/notes", alias: str = "signing") -> str:
    """Have a blob use a credential."""
    request = notes_pb2.SignNoteRequest(revision=f"{blob}@draft", name="first", credential=alias)
    return (await notes_pb2_grpc.NotesServiceStub(api.channel).SignNote(request)).signature


def signature(secret: str) -> str:
    return hmac.new(secret.encode(), TEXT.encode(), hashlib.sha256).hexdigest()


async def sql(server: Served, statement: sa.Executable) -> Sequence[Any]:
    """Run a statement on a running server's database, behind its back."""
    url = sa.make_url(server.settings.url)
    if url.get_backend_name() == "sqlite":
        local = sa.create_engine(url)
        with local.begin() as connection:
            result = connection.execute(statement)
            rows = result.all() if result.returns_rows else []
        local.dispose()
        return rows
    remote = make_engine(url)
    async with remote.begin() as connection:
        result = await connection.execute(statement)
        rows = result.all() if result.returns_rows else []
    await remote.dispose()
    return rows


def changed(id_: str, **values: Any) -> sa.Update:
    return credentials.update().where(credentials.c.id == id_).values(values)


async def test_a_credential_is_created_got_listed_changed_and_deleted(hub: Api) -> None:
    for owner in ("acme", "acme/notes", "@me"):
        made = await create(hub, owner, marked.secret("create"), description="for signing")
        assert (made.alias, made.type, made.description) == ("signing", "test", "for signing")
        assert (bool(made.organization_id), bool(made.blob_id), bool(made.user_id)) == (
            owner != "@me",
            "/" in owner,
            owner == "@me",
        )
        assert await get(hub, made.id) == made
        assert await aliases(hub, owner) == ["signing"]
        updated = await update(hub, made, description="for more", body=struct({"key": marked.secret("update")}))
        assert (updated.description, updated.create_time) == ("for more", made.create_time)
        assert updated.etag != made.etag
        assert await get(hub, made.id) == updated
        await delete(hub, made.id)
        assert await aliases(hub, owner) == []
        await expect_refusal(get(hub, made.id), ABSENT, "NOT_FOUND")


async def test_lists_are_by_alias_and_hold_an_owners_own(hub: Api) -> None:
    for alias in ("b", "a", "d", "c"):
        await create(hub, "acme", marked.secret("list"), alias)
    await create(hub, "acme/notes", marked.secret("list"), "e")
    found, token = [], ""
    while True:
        request = credential_pb2.ListCredentialsRequest(parent="acme", page_size=3, page_token=token)
        answer = clean(await hub.credentials.ListCredentials(request))
        found.append([credential.alias for credential in answer.credentials])
        token = answer.next_page_token
        if not token:
            break
        other = credential_pb2.ListCredentialsRequest(parent="acme/notes", page_token=token)
        await expect_refusal(hub.credentials.ListCredentials(other), INVALID, "INVALID_PAGE_TOKEN")
    assert found == [["a", "b", "c"], ["d"]]
    assert await aliases(hub, "acme/notes") == ["e"]


async def test_an_alias_is_an_owners_once_also_when_two_take_it_at_once(hub: Api) -> None:
    made = [create(hub, "acme", marked.secret("twice")) for _ in range(4)]
    outcomes = await asyncio.gather(*made, return_exceptions=True)
    assert sum(isinstance(outcome, credential_pb2.Credential) for outcome in outcomes) == 1
    await expect_refusal(create(hub, "acme", marked.secret("twice")), EXISTS, "ALREADY_EXISTS")
    await create(hub, "acme/notes", marked.secret("beside"))


async def test_an_alias_means_the_blobs_own_credential_else_the_organizations(hub: Api) -> None:
    await create(hub, "@me", marked.secret("mine"))
    for asked in (resolve(hub, "acme/notes"), sign(hub)):
        await expect_refusal(asked, ABSENT, "NOT_FOUND")
    shared, own = marked.secret("organization's"), marked.secret("blob's")
    of_acme = await create(hub, "acme", shared)
    assert (await resolve(hub, "acme/notes"), await sign(hub)) == (of_acme, signature(shared))
    of_notes = await create(hub, "acme/notes", own)
    assert (await resolve(hub, "acme/notes"), await sign(hub)) == (of_notes, signature(own))
    assert (await resolve(hub, "acme/more"), await sign(hub, "acme/more")) == (of_acme, signature(shared))
    await delete(hub, of_notes.id)
    assert (await resolve(hub, "acme/notes"), await sign(hub)) == (of_acme, signature(shared))


@pytest.mark.either_database
async def test_what_is_used_is_what_was_stored_last(hub: Api) -> None:
    first, second = marked.secret("first"), marked.secret("second")
    made = await create(hub, "acme/notes", first)
    described = await update(hub, made, description="more", update_mask={"paths": ["description"]}, body=struct({}))
    assert await sign(hub) == signature(first)
    await update(hub, described, body=struct({"key": second}))
    assert await sign(hub) == signature(second)
    assert (await get(hub, made.id)).description == "more"
    emptied = await update(hub, described, update_mask={"paths": ["description"]})
    assert emptied.description == ""
    unset = update(hub, made, update_mask={"paths": ["body"]})
    await expect_refusal(unset, INVALID, "INVALID_VALUE")
    await update(hub, made, body=struct({"key": 12}))
    await expect_refusal(sign(hub), INVALID, "INVALID_VALUE")


@pytest.mark.either_database
async def test_a_request_made_again_is_answered_again_and_one_with_another_secret_is_not(hub: Api) -> None:
    secret, id_ = marked.secret("again"), str(uuid.uuid4())
    made = await create(hub, "acme", secret, request_id=id_)
    assert await create(hub, "acme", secret, request_id=id_) == made
    await expect_refusal(create(hub, "acme", marked.secret("other"), request_id=id_), EXISTS, "REQUEST_ID_REUSED")
    changed_id = str(uuid.uuid4())
    body = struct({"key": secret})
    updated = await update(hub, made, body=body, request_id=changed_id)
    assert await update(hub, made, body=body, request_id=changed_id) == updated
    for _ in range(2):
        await delete(hub, made.id, request_id=id_)


@pytest.mark.either_database
async def test_a_stale_etag_changes_nothing(hub: Api) -> None:
    secret = marked.secret("kept")
    made = await create(hub, "acme", secret)
    current = await update(hub, made, description="newer", etag=made.etag)
    stale = update(hub, made, body=struct({"key": "lost"}), etag=made.etag)
    for asked in (stale, delete(hub, made.id, etag=made.etag)):
        await expect_refusal(asked, grpc.StatusCode.ABORTED, "STALE_ETAG")
    assert await sign(hub) == signature(secret)
    await delete(hub, made.id, etag=current.etag)


async def test_a_body_that_comes_as_text_is_kept_exactly(hub: Api) -> None:
    assert rules.parse('{"n": 9007199254740993, "z": -0.0, "": 1e308}') == b'{"n":9007199254740993,"z":-0.0,"":1e+308}'
    secret, later = marked.secret("as text"), marked.secret("as text, later")
    asked = credential_pb2.CreateCredentialRequest(
        parent="acme", alias="signing", type="test", body_json=json.dumps({"key": secret, "id": 2**53 + 1})
    )
    made = (await hub.credentials.CreateCredential(asked)).credential
    assert await sign(hub) == signature(secret)
    await update(hub, made, update_mask={"paths": ["body_json"]}, body_json=json.dumps({"key": later}))
    assert await sign(hub) == signature(later)
    unset = update(hub, made, update_mask={"paths": ["body_json"]})
    await expect_refusal(unset, INVALID, "INVALID_VALUE")


@pytest.mark.either_database
async def test_a_body_is_an_object_of_16_kib_with_finite_numbers(hub: Api) -> None:
    made = await create(hub, "acme", "x" * (rules.MAX_BODY_BYTES - len('{"key":""}')))
    secret = marked.secret("refused")
    for wrong in ({"key": secret * 400}, {secret: float("nan")}, {"deep": [{secret: float("inf")}]}):
        asked = credential_pb2.CreateCredentialRequest(parent="acme", alias="wrong", type="test", body=struct(wrong))
        error = await expect_refusal(hub.credentials.CreateCredential(asked), INVALID, "INVALID_VALUE")
        assert marked.MARKER not in repr(error)
        await expect_refusal(update(hub, made, body=struct(wrong)), INVALID, "INVALID_VALUE")
    deep = "[" * 24 + "]" * 24
    for text in (
        secret,
        f'["{secret}"]',
        f'{{"{secret}": NaN}}',
        f'{{"{secret}": 1{"0" * 30}}}',
        f'{{"a": "{secret}", "a": {deep}}}',
    ):
        asked = credential_pb2.CreateCredentialRequest(parent="acme", alias="wrong", type="test", body_json=text)
        error = await expect_refusal(hub.credentials.CreateCredential(asked), INVALID, "INVALID_VALUE")
        assert marked.MARKER not in repr(error)
        await expect_refusal(update(hub, made, body_json=text), INVALID, "INVALID_VALUE")
    bodiless = credential_pb2.CreateCredentialRequest(parent="acme", alias="wrong", type="test")
    await expect_refusal(hub.credentials.CreateCredential(bodiless), INVALID, "INVALID_REQUEST")
    assert await aliases(hub, "acme") == ["signing"]


@pytest.mark.either_database
async def test_an_owner_has_so_many_credentials_and_no_more(hub: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_CREDENTIALS", 2)
    for alias in ("one", "two"):
        await create(hub, "acme", marked.secret("limit"), alias)
    await expect_refusal(
        create(hub, "acme", marked.secret("limit"), "three"), grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED"
    )
    await create(hub, "acme/notes", marked.secret("limit"), "three")


@pytest.mark.either_database
async def test_only_admins_have_to_do_with_credentials_and_writers_use_them(hub: Api, server: Served) -> None:
    secret = marked.secret("used")
    made = await create(hub, "acme", secret)
    key = await hub.api_keys.CreateApiKey(api_key_pb2.CreateApiKeyRequest(parent="acme", role="ROLE_WRITE"))
    async with connected(server.address, key.key) as writer:
        for asked in (get(writer, made.id), aliases(writer, "acme"), resolve(writer, "acme/notes"), delete(writer, made.id)):
            await expect_refusal(asked, DENIED, "PERMISSION_DENIED")
        assert await sign(writer) == signature(secret)


async def test_credentials_go_with_their_owner(hub: Api, server: Served) -> None:
    of_notes, of_acme = [await create(hub, owner, marked.secret("gone")) for owner in ("acme/notes", "acme")]
    await hub.blobs.DeleteBlob(blob_pb2.DeleteBlobRequest(blob="acme/notes", cascade=True))
    await expect_refusal(get(hub, of_notes.id), ABSENT, "NOT_FOUND")
    assert (await get(hub, of_acme.id)) == of_acme
    await hub.organizations.DeleteOrganization(organization_pb2.DeleteOrganizationRequest(organization="acme", cascade=True))
    await expect_refusal(get(hub, of_acme.id), ABSENT, "NOT_FOUND")
    await collected(server.settings.url)
    assert await sql(server, sa.select(credentials.c.id)) == []


async def test_the_database_holds_no_secret(hub: Api, server: Served) -> None:
    secret, id_ = marked.secret("at rest"), str(uuid.uuid4())
    made = await create(hub, "acme/notes", secret, request_id=id_)
    await expect_refusal(create(hub, "acme/notes", secret), EXISTS, "ALREADY_EXISTS")
    await update(hub, made, body=struct({"key": secret, "more": [secret]}), request_id=str(uuid.uuid4()))
    await sign(hub)
    for table in metadata.sorted_tables:
        for row in await sql(server, sa.select(table)):
            for value in row:
                shown = bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
                assert secret.encode() not in shown, table.name
                assert b"BHCANARY" not in shown, table.name
    for path in server.settings.data_dir.rglob("*"):
        assert path.is_dir() or b"BHCANARY" not in path.read_bytes()


async def test_bits_flipped_in_the_database_are_found(hub: Api, server: Served) -> None:
    made = await create(hub, "acme/notes", marked.secret("flipped"))
    (row,) = await sql(server, credentials.select().where(credentials.c.id == made.id))
    for name in ("ciphertext", "nonce", "wrapped_key", "key_nonce"):
        kept = bytes(getattr(row, name))
        for bit in (0, 4 * len(kept), 8 * len(kept) - 1):
            flipped = bytearray(kept)
            flipped[bit // 8] ^= 1 << bit % 8
            await sql(server, changed(made.id, **{name: bytes(flipped)}))
            await expect_refusal(sign(hub), LOST, "CREDENTIAL_UNREADABLE")
        await sql(server, changed(made.id, **{name: kept}))
    await sql(server, changed(made.id, master_key_id="0" * 16))
    await expect_refusal(sign(hub), grpc.StatusCode.FAILED_PRECONDITION, "MASTER_KEY_MISSING")
    await sql(server, changed(made.id, master_key_id=row.master_key_id))
    assert len(await sign(hub)) == 64


async def test_what_is_sealed_cannot_be_swapped_between_rows(hub: Api, server: Served) -> None:
    ids = [(await create(hub, "acme/notes", marked.secret(alias), alias)).id for alias in ("mine", "theirs")]
    rows = [(await sql(server, credentials.select().where(credentials.c.id == id_)))[0] for id_ in ids]
    key, body = ("wrapped_key", "key_nonce"), ("ciphertext", "nonce")
    for names in (key, body, key + body):
        for id_, row in zip(ids, reversed(rows), strict=True):
            await sql(server, changed(id_, **{name: getattr(row, name) for name in names}))
        for alias in ("mine", "theirs"):
            await expect_refusal(sign(hub, alias=alias), LOST, "CREDENTIAL_UNREADABLE")
        for id_, row in zip(ids, rows, strict=True):
            await sql(server, changed(id_, **{name: getattr(row, name) for name in names}))
    assert len(await sign(hub, alias="mine")) == 64


async def test_a_row_cannot_be_moved_to_another_owner_or_alias(hub: Api, server: Served) -> None:
    made = await create(hub, "acme/notes", marked.secret("moved"))
    more = (await hub.blobs.GetBlob(blob_pb2.GetBlobRequest(blob="acme/more"))).blob
    moves: list[tuple[dict[str, Any], str, str]] = [
        ({"parent_id": more.id}, "acme/more", "signing"),
        ({"parent_id": more.id, "blob_id": more.id}, "acme/more", "signing"),
        ({"parent_id": more.organization_id}, "acme/more", "signing"),
        ({"parent_id": more.organization_id, "blob_id": None}, "acme/more", "signing"),
        ({"alias": "other"}, "acme/notes", "other"),
        ({"type": "other"}, "acme/notes", "signing"),
        ({"id": more.id}, "acme/notes", "signing"),
    ]
    (row,) = await sql(server, credentials.select().where(credentials.c.id == made.id))
    for values, blob, alias in moves:
        await sql(server, changed(made.id, **values))
        await expect_refusal(sign(hub, blob, alias), LOST, "CREDENTIAL_UNREADABLE")
        await sql(server, changed(values.get("id", made.id), **row._asdict()))
    assert len(await sign(hub)) == 64


@pytest.mark.either_database
async def test_a_server_with_another_master_key_does_not_start(tmp_path: Any, database_url: str) -> None:
    data_dir = tmp_path / "data"
    async with served(data_dir, database_url):
        pass
    (data_dir / "master-key").unlink()
    with pytest.raises(StartError, match="master keys that are not given"):
        async with served(data_dir, database_url):
            pass


@pytest.mark.either_database
async def test_a_note_that_comes_in_pieces_is_written_once(hub: Api) -> None:
    notes, id_ = notes_pb2_grpc.NotesServiceStub(hub.channel), str(uuid.uuid4())
    pieces = [notes_pb2.UploadNoteRequest(revision="acme/notes@draft", name="long", text="one ", request_id=id_)]
    pieces += [notes_pb2.UploadNoteRequest(text=text) for text in ("two ", "", "three")]
    answer = await notes.UploadNote(iter(pieces))
    assert await notes.UploadNote(iter(pieces)) == answer
    found = await notes.GetNote(notes_pb2.GetNoteRequest(revision="acme/notes@draft", name="long"))
    assert found.text == "one two three"
    nameless = [notes_pb2.UploadNoteRequest(revision="acme/notes@draft", text="one")]
    await expect_refusal(notes.UploadNote(iter(nameless)), INVALID, "INVALID_VALUE")
