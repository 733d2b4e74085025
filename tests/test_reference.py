"""References: how requests name things, and what a reader of a public blob sees of its drafts."""

from __future__ import annotations

from collections.abc import Awaitable

import acme
import flows
import grpc
import pytest
from acme import PUBLIC, READ
from blobhub.v1 import blob_pb2, definition_pb2, revision_pb2, session_pb2
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.blobtypes.reference import names_revision
from blobhub_server.errors import InvalidReference
from blobhub_server.platform.rules.reference import parse
from calling import ask
from hypothesis import given
from hypothesis import strategies as st
from served import Api, Served

pytestmark = pytest.mark.either_database

NOT_FOUND, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
ABSENT = "01890000-0000-7000-8000-000000000000"


async def get_session(api: Api, reference: str) -> session_pb2.Session:
    return (await api.sessions.GetSession(session_pb2.GetSessionRequest(session=reference))).session


async def get_definition(api: Api, reference: str) -> definition_pb2.Definition:
    return (await api.definitions.GetDefinition(definition_pb2.GetDefinitionRequest(definition=reference))).definition


async def furnish(api: Api) -> None:
    """Make `acme/pipeline` with a definition `workflow` in its draft."""
    await acme.organization(api)
    await acme.blob(api)
    await api.put(flows.steps(1))


async def test_a_session_is_named_by_its_alias_in_its_revision(api: Api) -> None:
    await furnish(api)
    snapshot = await api.publish()
    made = (await ask(api, "CreateSession", revision="acme/pipeline@1", alias="intake")).session
    for version in ("1", "default", "latest", snapshot.id):
        assert await get_session(api, f"acme/pipeline@{version}/intake") == made
    assert await get_session(api, f"{snapshot.id}/intake") == made
    started = (await ask(api, "StartExecution", session="acme/pipeline@1/intake", spec={"definition": "workflow"})).execution
    assert started.session_id == made.id
    await ask(api, "PutSessionObject", session="acme/pipeline@1/intake", alias="one", value={"string_value": "text"})
    found = (await ask(api, "GetSessionObject", session=made.id, alias="one")).session_object
    assert (found.session_id, found.value.string_value) == (made.id, "text")
    closed = (await ask(api, "CloseSession", session="acme/pipeline@1/intake")).session
    assert closed.id == made.id
    assert (await get_session(api, "acme/pipeline@1/intake")).id == made.id, (
        "while no other has the alias, it is the closed one's"
    )


async def test_a_session_that_is_not_closed_has_its_alias_before_closed_ones(api: Api) -> None:
    await furnish(api)
    made = []
    for _ in range(3):
        made.append((await ask(api, "CreateSession", revision="acme/pipeline@draft", alias="intake")).session.id)
        assert (await get_session(api, "acme/pipeline@draft/intake")).id == made[-1]
        await ask(api, "CloseSession", session=made[-1])
    assert (await get_session(api, "acme/pipeline@draft/intake")).id == made[-1]


async def test_a_definition_is_named_by_its_alias_in_its_revision_or_by_its_id(api: Api) -> None:
    await furnish(api)
    made = await get_definition(api, "acme/pipeline@draft/workflow")
    assert await get_definition(api, made.id) == await get_definition(api, f"{made.revision_id}/workflow") == made
    await ask(api, "DeleteDefinition", definition=made.id)
    for gone in (made.id, "acme/pipeline@draft/workflow"):
        await expect_refusal(get_definition(api, gone), NOT_FOUND, "NOT_FOUND")


async def test_what_is_no_reference_to_something_in_a_revision_is_refused(api: Api) -> None:
    await furnish(api)
    for text in (
        "intake",
        "acme/pipeline",
        "acme/pipeline/intake",
        "acme/pipeline@1/",
        "acme/pipeline@newest/intake",
        "@me",
    ):
        await expect_refusal(get_session(api, text), INVALID, "INVALID_REQUEST")
        await expect_refusal(get_definition(api, text), INVALID, "INVALID_REQUEST")
    for text in ("acme/pipeline@draft/none", "acme/pipeline@7/intake", "acme/none@1/intake"):
        await expect_refusal(get_session(api, text), NOT_FOUND, "NOT_FOUND")
        await expect_refusal(get_definition(api, text), NOT_FOUND, "NOT_FOUND")


async def test_ids_are_compared_without_regard_to_case(api: Api) -> None:
    await furnish(api)
    blob, draft = await acme.get_blob(api), await acme.get_revision(api, "acme/pipeline@draft")
    made = (await ask(api, "CreateSession", revision=draft.id.upper(), alias="intake")).session
    started = (await ask(api, "StartExecution", session=made.id.upper(), spec={"definition": "workflow"})).execution
    definition = await get_definition(api, "acme/pipeline@draft/workflow")
    assert await get_definition(api, definition.id.upper()) == definition
    assert (await acme.get_blob(api, blob.id.upper())).id == blob.id
    assert (await acme.get_blob(api, f"{blob.organization_id.upper()}/pipeline")).id == blob.id
    assert (await acme.get_revision(api, f"acme/pipeline@{draft.id.upper()}")).id == draft.id
    assert (await get_session(api, f"{draft.id.upper()}/intake")).id == made.id
    assert (await ask(api, "GetExecution", execution=started.id.upper())).execution.id == started.id
    key = (await acme.key(api, blob.organization_id.upper())).api_key
    assert (await ask(api, "GetApiKey", api_key=key.id.upper())).api_key == key
    user = (await ask(api, "GetUser", user="@me")).user
    assert (await ask(api, "GetUser", user=user.id.upper())).user == user
    await api.publish()
    assert (await acme.update_blob(api, default_revision=draft.id.upper())).default_revision_id == draft.id


async def test_aliases_are_not_ids_and_no_longer_than_63(api: Api) -> None:
    await furnish(api)
    longest = "a" * 63
    assert (await acme.blob(api, f"acme/{longest}")).alias == longest
    await ask(api, "PutDefinition", revision="acme/pipeline@draft", alias=longest, document=flows.steps(1))
    assert (await ask(api, "CreateSession", revision="acme/pipeline@draft", alias=longest)).session.alias == longest
    assert (await get_session(api, f"acme/pipeline@draft/{longest}")).alias == longest
    for alias in ("a" * 64, "01890000-0000-7000-8000-000000000000", "-"):
        put = ask(api, "PutDefinition", revision="acme/pipeline@draft", alias=alias, document=flows.steps(1))
        await expect_refusal(put, INVALID, "INVALID_REQUEST")
        made = ask(api, "CreateSession", revision="acme/pipeline@draft", alias=alias)
        await expect_refusal(made, INVALID, "INVALID_REQUEST")


async def revisions(api: Api) -> list[str]:
    request = revision_pb2.ListRevisionsRequest(blob="acme/pipeline")
    return [revision.id for revision in (await api.revisions.ListRevisions(request)).revisions]


async def test_who_reads_a_public_blob_without_a_role_never_sees_a_draft(server: Served, api: Api, anonymous: Api) -> None:
    await furnish(api)
    await ask(api, "UpdateOrganization", organization="acme", visibility=PUBLIC)
    await acme.update_blob(api, visibility=PUBLIC)
    first = await acme.get_revision(api, "acme/pipeline@draft")
    async with acme.person(server, api, "out") as outsider, acme.person(server, api, "ann", ("acme/pipeline", READ)) as ann:
        for who in (anonymous, outsider):
            code, reason = (UNAUTHENTICATED, "UNAUTHENTICATED") if who is anonymous else (NOT_FOUND, "NOT_FOUND")
            for draft in ("acme/pipeline", "acme/pipeline@draft", f"acme/pipeline@{first.id}"):
                await expect_refusal(acme.get_revision(who, draft), code, reason)
            await expect_refusal(get_definition(who, "acme/pipeline@draft/workflow"), code, reason)
            assert await revisions(who) == []
            assert await defaults(who) == {""}
        assert (await acme.get_revision(ann, "acme/pipeline")).id == first.id
        snapshot = await api.publish()
        await acme.branch(api)
        await acme.update_blob(api, default_revision="draft")
        draft = await acme.get_revision(api, "acme/pipeline@draft")
        for who in (anonymous, outsider):
            assert await defaults(who) == {snapshot.id}
            assert (await acme.get_revision(who, "acme/pipeline")).id == snapshot.id
            assert (await get_definition(who, "acme/pipeline@default/workflow")).revision_id == snapshot.id
            assert await revisions(who) == [snapshot.id]
        assert (await acme.get_revision(ann, "acme/pipeline")).id == draft.id
        assert await revisions(ann) == [snapshot.id, draft.id]
        assert await defaults(ann) == {draft.id}


async def defaults(api: Api) -> set[str]:
    """What `acme/pipeline` itself and the list of blobs call its default revision."""
    (listed,) = (await api.blobs.ListBlobs(blob_pb2.ListBlobsRequest(organization="acme"))).blobs
    return {listed.default_revision_id, (await acme.get_blob(api)).default_revision_id}


async def test_to_who_holds_no_role_a_draft_of_a_public_blob_is_like_none(server: Served, api: Api, anonymous: Api) -> None:
    """By its id alone, by the id of what is in it, and by `@draft`, however many there are."""
    await furnish(api)
    await acme.update_blob(api, visibility=PUBLIC)
    draft = await acme.get_revision(api, "acme/pipeline@draft")
    definition = await get_definition(api, f"{draft.id}/workflow")
    async with acme.person(server, api, "out") as outsider:
        for who in (anonymous, outsider):
            for call, hidden, absent in (
                (acme.get_revision, draft.id, ABSENT),
                (acme.commit, draft.id, ABSENT),
                (get_definition, f"{draft.id}/workflow", f"{ABSENT}/workflow"),
                (get_definition, definition.id, ABSENT),
                (acme.get_revision, "acme/pipeline@draft", "acme/pipeline@7"),
            ):
                assert await told(call(who, hidden), hidden) == await told(call(who, absent), absent)
        before = await told(acme.get_revision(outsider, "acme/pipeline@draft"), "@draft")
        await acme.commit(api, draft.id)
        for _ in range(2):
            await acme.branch(api)
        assert await told(acme.get_revision(outsider, "acme/pipeline@draft"), "@draft") == before
        await expect_refusal(acme.get_revision(api, "acme/pipeline@draft"), INVALID, "AMBIGUOUS_REFERENCE")


async def told(call: Awaitable[object], reference: str) -> tuple[grpc.StatusCode, str]:
    """How a call is refused, without the reference that it named."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code(), (raised.value.details() or "").replace(reference, "…")


async def test_who_watches_a_public_blob_without_a_role_is_not_sent_its_drafts(api: Api, anonymous: Api) -> None:
    await furnish(api)
    await acme.update_blob(api, visibility=PUBLIC)
    await api.publish()
    draft = await acme.branch(api)
    await acme.update_blob(api, default_revision=draft.id)
    for parent in ("acme/pipeline", "acme/pipeline@1", draft.id):
        await ask(api, "CreateMetadata", parent=parent, key="k", value={"number_value": 1})
        await ask(api, "UpdateMetadata", parent=parent, key="k", value={"number_value": 2})
        await ask(api, "DeleteMetadata", parent=parent, key="k")
    await ask(api, "UpdateRevision", revision=draft.id, comment="later")
    await acme.update_blob(api, default_revision="1")
    await ask(api, "DiscardRevision", revision=draft.id)
    request = blob_pb2.WatchBlobRequest(blob="acme/pipeline", replay_only=True)
    seen = [event async for batch in anonymous.blobs.WatchBlob(request) for event in batch.events]
    everything = [event async for batch in api.blobs.WatchBlob(request) for event in batch.events]
    hidden = [event.type for event in everything if event not in seen]
    assert hidden == [
        *("blob_created", "revision_created", "default_revision_changed"),
        *("metadata_created", "metadata_updated", "metadata_deleted"),
        *("revision_updated", "revision_discarded"),
    ]
    assert draft.id not in str(seen)
    assert [event.type for event in seen if event.type.startswith("metadata")] == 2 * hidden[3:6]


@pytest.mark.parametrize("text", ["", "acme//x", "acme/pipeline@", "acme/pipeline@0", "acme/pipeline@LATEST", "ACME/x"])
async def test_what_is_no_reference_to_a_revision_is_refused(api: Api, text: str) -> None:
    reason = "INVALID_REFERENCE" if text else "INVALID_REQUEST"
    await expect_refusal(acme.get_revision(api, text), INVALID, reason)


PIECES = st.sampled_from(
    ["acme", "scorer", "/", "@", "-", "default", "draft", "latest", "3", "03", ABSENT, ABSENT.replace("89", "AB"), "é"]
)


@given(st.lists(PIECES, max_size=6).map("".join))
def test_a_reference_to_a_revision_has_the_form_that_calls_take(text: str) -> None:
    try:
        parse("revision", "revision", text)
        taken = True
    except InvalidReference:
        taken = False
    assert names_revision(text) == taken
