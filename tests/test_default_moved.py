"""A blob type is told when the default revision of a blob of it moves, in the transaction that moves it."""

from __future__ import annotations

from pathlib import Path

import acme
import flows
import grpc
import pytest
import stranger_notes
from blobhub.v1 import revision_pb2
from blobhub_server.blobtypes.conformance import expect_refusal
from calling import ask
from served import Api, connected, served

NOTES, PIPELINE = "acme/notes", "acme/pipeline"


async def hub(api: Api) -> str:
    """Make a workflow and notes, and run one; return the run."""
    await acme.organization(api)
    await acme.blob(api, PIPELINE)
    await api.put(flows.steps(), revision=f"{PIPELINE}@draft")
    await acme.blob(api, NOTES, "stranger.notes")
    await ask(api, "PutNote", revision=f"{NOTES}@draft", name="milk", text="remember the milk")
    return await run(api, f"{NOTES}@draft")


async def run(api: Api, revision: str) -> str:
    asked = {"name": "milk", "workflow": f"{PIPELINE}@draft", "definition": "workflow"}
    return (await ask(api, "RunNote", revision=revision, **asked)).run_id


async def superseded(api: Api, *runs: str) -> list[bool]:
    return [(await ask(api, "GetNoteRun", note_run=run_id)).run.superseded for run_id in runs]


async def publish(api: Api, revision: str, **fields: object) -> None:
    await api.revisions.PublishRevision(revision_pb2.PublishRevisionRequest(revision=revision, **fields))


async def test_every_move_of_the_default_revision_is_told_and_nothing_else_is(api: Api) -> None:
    first_run = await hub(api)
    first = await acme.commit(api, f"{NOTES}@draft")
    await publish(api, first.id)
    assert await superseded(api, first_run) == [False], "a publication of the default revision moves nothing"
    second = await acme.branch(api, first.id, NOTES)
    second_run = await run(api, second.id)
    assert await superseded(api, first_run, second_run) == [False, False]
    await acme.update_blob(api, NOTES, default_revision=second.id)
    assert await superseded(api, first_run, second_run) == [True, False]
    await acme.update_blob(api, NOTES, default_revision=first.id)
    assert await superseded(api, first_run, second_run) == [False, True]
    await acme.commit(api, second.id)
    await publish(api, second.id, keep_default=True)
    assert await superseded(api, first_run, second_run) == [False, True]
    third = await acme.branch(api, second.id, NOTES)
    await ask(api, "DiscardRevision", revision=third.id)
    assert await superseded(api, first_run, second_run) == [False, True]
    third = await acme.commit(api, (await acme.branch(api, second.id, NOTES)).id)
    await publish(api, third.id)
    assert await superseded(api, first_run, second_run) == [True, True]


async def test_a_move_that_the_type_refuses_is_not_made(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []

    async def refuse(_tx: object, blob_id: str, revision_id: str) -> None:
        told.append((blob_id, revision_id))
        raise ZeroDivisionError

    monkeypatch.setattr(stranger_notes.store, "supersede", refuse)
    async with served(tmp_path / "data", database_url) as server, connected(server.address, server.admin_key) as api:
        await hub(api)
        first = await acme.commit(api, f"{NOTES}@draft")
        second = await acme.commit(api, (await acme.branch(api, first.id, NOTES)).id)
        before = await acme.get_blob(api, NOTES)
        moves = (acme.update_blob(api, NOTES, default_revision=second.id), publish(api, second.id))
        for move in moves:
            await expect_refusal(move, grpc.StatusCode.INTERNAL, "INTERNAL")
        assert await acme.get_blob(api, NOTES) == before
        assert await acme.get_revision(api, second.id) == second
        assert told == [(before.id, second.id)] * 2
