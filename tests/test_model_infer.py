"""`model.infer` on a real server: a workflow asks a model, with the rights of whoever started it, and says why it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import acme
import models
import pytest
import schedules
from asking import GOOD, answer, asked, asks, everything, started
from blobhub.v1 import execution_pb2
from blobhub_server.blobtypes import registry as blob_types
from blobhub_server.errors import StorageUnavailable
from blobhub_server.onnx.inference.engine import InferenceEngine
from blobhub_server.onnx.inference.errors import InferenceQueueFull
from blobhub_server.onnx.predictions import Predictions
from blobhub_server.onnx.questions import Questions
from calling import ask
from served import Api, Served, connected, served
from waiting import until, within_deadline

pytestmark = pytest.mark.either_database

NAN = {"x": [["NaN", "Infinity", "-Infinity", 0.5]]}


@pytest.fixture(scope="module")
async def hub(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server with a model in a commit that is the default revision of `acme/scorer`, and a workflow."""
    async with served(tmp_path_factory.mktemp("asking")) as server, connected(server.address, server.admin_key) as api:
        await models.blob(api)
        await models.stored(api, everything())
        await acme.commit(api, models.DRAFT)
        await acme.blob(api)
        yield server


@pytest.fixture
async def api(hub: Served) -> AsyncIterator[Api]:
    async with connected(hub.address, hub.admin_key) as made:
        yield made


async def ended(api: Api, execution_id: str) -> execution_pb2.Execution:
    """An execution once it has ended."""

    async def get() -> execution_pb2.Execution | None:
        found = (await ask(api, "GetExecution", execution=execution_id)).execution
        return found if found.HasField("end_time") else None

    return await until(get)


async def test_a_workflow_asks_a_model_and_goes_on_with_its_answer(api: Api) -> None:
    rows = [[1, 2, 3, 4], [0.5, 0, 0, -1]]
    texts = ["ä🦆", "", "a"]
    execution = await asked(api, asks("x", "s", i=[2, 0], n=[3]), x=rows, s={"type": "json", "json": texts})
    assert answer(execution) == {
        "y": [[2, 4, 6, 8], [1, 0, 0, -2]],
        "t": texts,
        "picked": [30, 10],
        "zeros": [0, 0, 0],
    }


async def test_dimensions_that_are_free_may_be_nothing(api: Api) -> None:
    execution = await asked(api, asks(outputs=["t", "y"], **GOOD | {"x": [], "s": []}))
    assert answer(execution) == {"t": [], "y": []}


async def test_what_json_has_no_number_for_goes_both_ways_as_a_text(api: Api) -> None:
    execution = await asked(api, asks("x", outputs=["y"], **{name: GOOD[name] for name in "sin"}), **NAN)
    assert answer(execution) == {"y": [["NaN", "Infinity", "-Infinity", 1]]}


async def test_tensors_may_come_in_one_object_and_the_answer_says_which_model_it_is_of(api: Api) -> None:
    document = asks("inputs", outputs=["picked"]).replace('"source_port": "outputs"', '"source_port": "revision_id"')
    execution = await asked(api, document, inputs=GOOD)
    assert answer(execution) == (await acme.get_revision(api, "acme/scorer")).id
    digest = asks("inputs").replace('"source_port": "outputs"', '"source_port": "model_digest"')
    assert answer(await asked(api, digest, inputs=GOOD)) == (await models.describe(api, "acme/scorer")).digest


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"model": "acme/nobody"}, "NOT_FOUND", "no such blob: acme/nobody"),
    ({"model": "acme/scorer@7"}, "NOT_FOUND", "there is no snapshot yet"),
    ({"model": "acme/pipeline"}, "WRONG_BLOB_TYPE", "blobhub.compute.workflow"),
    ({"model": "nothing"}, "INVALID_INPUT", "must be a reference to a revision"),
    ({"x": [1, 2, 3, 4]}, "INVALID_TENSOR", "tensor 'x' has another shape: expected FP32[-1,4], got FP32[4]"),
    ({"x": [[1, 2, 3]]}, "INVALID_TENSOR", "expected FP32[-1,4], got FP32[1,3]"),
    ({"x": [[1, 2, "a", 4]]}, "INVALID_TENSOR", "expected numbers for FP32[-1,4], got a text at [0][2]"),
    ({"x": [[1, 2, 3, True]]}, "INVALID_TENSOR", "got true at [0][3]"),
    ({"x": [[1, 2, 3, 1e39]]}, "INVALID_TENSOR", "has an item out of range: expected items of FP32"),
    ({"x": [[1, 2], [3]]}, "INVALID_INPUT", "'x' must be nested lists, all of one length in each dimension"),
    ({"i": [0.5]}, "INVALID_TENSOR", "expected whole numbers for INT64[-1], got 0.5 at [0]"),
    ({"s": [1]}, "INVALID_TENSOR", "expected texts for BYTES[-1], got 1 at [0]"),
    ({"z": 1}, "INVALID_TENSOR", "tensor 'z' is no input of the model: expected x, s, i, n, got z"),
    ({"outputs": ["z"]}, "INVALID_TENSOR", "tensor 'z' is no output of the model: expected y, t, picked, zeros"),
    ({"i": [5]}, "INFERENCE_REFUSED", "Gather"),
    ({"n": [20_000]}, "INFERENCE_EXHAUSTED", "a value has at most 10000: the largest, 'zeros', is FP32[20000]"),
]


@pytest.mark.parametrize(("given", "reason", "says"), REFUSED, ids=[says[:40] for _, _, says in REFUSED])
async def test_what_the_model_cannot_answer_fails_with_its_name(
    api: Api, given: dict[str, Any], reason: str, says: str
) -> None:
    execution = await asked(api, asks(*(GOOD | given)), **GOOD | given)
    assert execution.failure.reason == reason
    assert says in execution.failure.message


async def test_a_tensor_that_is_absent_is_named(api: Api) -> None:
    execution = await asked(api, asks(**{name: GOOD[name] for name in "xsi"}))
    assert execution.failure.reason == "INVALID_TENSOR"
    assert "tensor 'n' is missing: expected INT64[1]" in execution.failure.message


async def test_what_may_pass_is_tried_again_under_the_policy_and_nothing_else(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer, asked_for = InferenceEngine.infer, []

    async def busy(self: InferenceEngine, *question: Any) -> Any:
        asked_for.append(question)
        if len(asked_for) < 3:
            raise InferenceQueueFull
        return await infer(self, *question)

    monkeypatch.setattr(InferenceEngine, "infer", busy)
    execution = await asked(api, asks(**GOOD))
    assert execution.failure.reason == "INFERENCE_QUEUE_FULL"
    policy = {"retry": {"maximum_attempts": 5, "initial_interval": "0.01s"}}
    assert answer(await asked(api, asks(policy=policy, outputs=["t"], **GOOD))) == {"t": ["a"]}
    asked_for.clear()
    monkeypatch.setattr(InferenceEngine, "infer", infer)
    execution = await asked(api, asks(policy=policy, **GOOD | {"i": [5]}))
    assert execution.failure.reason == "INFERENCE_REFUSED"
    events = await ask(api, "ListEvents", session=execution.session_id, types=["processor.retrying"])
    assert list(events.events) == []


@pytest.mark.both_databases
async def test_storage_that_is_away_is_waited_for(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    find, away = Predictions.find, [StorageUnavailable()]

    async def shaky(self: Predictions, *model: Any) -> Any:
        if away:
            raise away.pop()
        return await find(self, *model)

    monkeypatch.setattr(Predictions, "find", shaky)
    assert answer(await asked(api, asks(outputs=["t"], **GOOD))) == {"t": ["a"]}


async def test_a_model_that_takes_too_long_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled = asyncio.Event()

    async def never(*_: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    monkeypatch.setattr(InferenceEngine, "infer", never)
    execution = await asked(api, asks(policy={"timeout": "0.05s"}, **GOOD))
    assert execution.failure.reason == "TIMEOUT"
    await within_deadline(cancelled.wait())


@pytest.mark.parametrize("lost", ["the key", "the membership", "the blob"])
async def test_rights_count_when_the_model_is_asked_and_not_when_the_execution_starts(
    hub: Served, api: Api, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    infer, entered, go_on = Questions.infer, asyncio.Event(), asyncio.Event()

    async def late(self: Questions, question: Any) -> Any:
        entered.set()
        await go_on.wait()
        return await infer(self, question)

    name = lost.replace(" ", "-")
    blob = f"acme/{name}"
    await acme.blob(api, blob, models.ONNX)
    async with acme.person(hub, api, name, ("acme/pipeline", acme.WRITE), (blob, acme.READ)) as person:
        assert "no such model" in (await asked(person, asks(model=blob))).failure.message
        monkeypatch.setattr(Questions, "infer", late)
        execution = await started(person, asks(model=blob))
        await within_deadline(entered.wait())
        if lost == "the blob":
            await acme.delete_blob(api, blob)
        elif lost == "the membership":
            await ask(api, "DeleteMember", parent=blob, user=f"@{name}")
        else:
            await acme.update_user(api, f"@{name}", disabled=True)
        go_on.set()
        told = (await ended(api, execution.id)).failure
    assert told.reason == "PERMISSION_DENIED"
    assert ("may not act any more" if lost == "the key" else "may not see it") in told.message


async def test_a_public_model_answers_everybody_but_never_with_a_draft(hub: Served, api: Api) -> None:
    await acme.organization(api, "open")
    await acme.blob(api, "open/scorer", models.ONNX)
    await models.stored(api, everything(), "open/scorer@draft")
    await acme.update_blob(api, "open/scorer", visibility=acme.PUBLIC)
    async with acme.person(hub, api, "stranger", ("acme/pipeline", acme.WRITE)) as stranger:
        question = asks(model="open/scorer", outputs=["t"], **GOOD)
        assert "no such revision: open/scorer" in (await asked(stranger, question)).failure.message
        commit = await acme.commit(api, "open/scorer@draft")
        assert answer(await asked(stranger, question)) == {"t": ["a"]}
        draft = await acme.branch(api, commit.id, "open/scorer")
        for hidden in (draft.id, "open/scorer@draft"):
            assert (await asked(stranger, asks(model=hidden, **GOOD))).failure.reason in ("NOT_FOUND", "PERMISSION_DENIED")
        assert answer(await asked(api, asks(model=draft.id, outputs=["t"], **GOOD))) == {"t": ["a"]}


async def test_the_default_revision_is_the_one_of_when_the_model_is_asked(api: Api) -> None:
    await acme.blob(api, "acme/moving", models.ONNX)
    question = asks(model="acme/moving", outputs=["t"], **GOOD)
    assert "no such model" in (await asked(api, question)).failure.message
    await models.stored(api, everything(), "acme/moving@draft")
    assert answer(await asked(api, question)) == {"t": ["a"]}
    await ask(api, "UpdateBlob", blob="acme/moving", alias="moved")
    execution = await asked(api, question)
    assert (execution.failure.reason, "acme/moved" in execution.failure.message) == ("RENAMED", True)
    await acme.commit(api, "acme/moved@draft")
    for _ in range(2):
        await acme.branch(api, "", "acme/moved")
    ambiguous = await asked(api, asks(model="acme/moved@draft", **GOOD))
    assert ambiguous.failure.reason == "AMBIGUOUS_REFERENCE"


async def test_a_schedule_fires_a_workflow_that_asks_a_model(api: Api) -> None:
    await api.put(asks("x", outputs=["y"], **{name: GOOD[name] for name in "sin"}), alias="scoring")
    await acme.blob(api, schedules.NIGHTLY, schedules.SCHEDULER)
    target = {"revision": "acme/pipeline@default", "definition": "scoring"}
    given = [{"alias": "x", "value_json": "[[1, 2, 3, 4]]"}]
    await schedules.create(api, spec=schedules.DAILY | {"invocation_target": target, "input_data": given})
    fired = await schedules.trigger(api)

    assert answer(await ended(api, fired.execution_id)) == {"y": [[2, 4, 6, 8]]}


async def test_without_the_type_of_models_the_check_says_what_is_missing(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = [point for point in blob_types.entry_points(group=blob_types.GROUP) if point.name != models.ONNX]
    monkeypatch.setattr(blob_types, "entry_points", lambda group: installed)
    async with served(tmp_path / "data") as server, connected(server.address, server.admin_key) as api:
        await acme.organization(api)
        await acme.blob(api)
        for notes in ("", "n" * 40_000):  # The longer one is checked in another process.
            document = asks(**GOOD | {"s": [notes]})
            (problem,) = (await ask(api, "CheckDefinition", revision=acme.DRAFT, document=document)).problems
            assert problem.path == "components[1].type"
            assert "model.infer needs models to ask, in blobs of the type blobhub.model.onnx" in problem.message
