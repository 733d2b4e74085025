"""Models that others have made: sent in every way, they come back byte for byte and predict what onnxruntime does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import models
import numpy as np
import pytest
from inferring import in_process, predictions
from model_uploads import in_parts, in_parts_archive, sha256
from models import DRAFT, describe, download, put, put_archive, upload, upload_archive
from real_models import FOREST, LISTENER, MODELS, READER, RealModel, flowers, forest
from scale import sample
from served import Api, connected, served

WAYS = (put, put_archive, upload, upload_archive, in_parts, in_parts_archive)
TOO_LARGE = {(READER, put), (READER, put_archive)}
"""What does not fit one message."""
ALL = [(model, way) for model in MODELS for way in WAYS if (model, way) not in TOO_LARGE]
CASES = sample(ALL, lambda case: (case[0].name, case[1].__name__), seed=5)
"""All of them at full size; else each model and each way."""


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Api]:
    """A client of a server on SQLite with a blob for a model: what becomes of bytes is the same on every database."""
    async with served(tmp_path / "data") as server, connected(server.address, server.admin_key) as api:
        await models.blob(api)
        yield api


def require_same(answer: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """The same outputs, to the last bit."""
    assert answer.keys() == expected.keys()
    for name, array in expected.items():
        assert answer[name].shape == array.shape
        assert np.array_equal(answer[name], array), name


@pytest.mark.parametrize(("model", "way"), CASES, ids=lambda each: getattr(each, "name", None) or each.__name__)
async def test_a_real_model_comes_back_as_it_was_sent_and_predicts_what_onnxruntime_does(
    hub: Api, model: RealModel, way: Any
) -> None:
    content = model.read()
    processed = await models.processed(hub, await way(hub, content))
    described = await describe(hub)
    assert described == processed.model
    assert (described.digest, described.size) == (sha256(content), len(content))
    artifact, received = await download(hub)
    assert received == content
    assert (artifact.path, artifact.size, artifact.digest) == ("model.onnx", len(content), described.digest)
    await compare_ranges(hub, content)
    asked = model.ask(np.random.default_rng(7))
    require_same(await predictions(hub, DRAFT, **asked), in_process(content, **asked))


async def compare_ranges(hub: Api, content: bytes) -> None:
    """Get the whole by a signed request, and parts of it."""
    signed, size = await models.sign(hub), len(content)
    assert signed.artifact.digest == sha256(content)
    async with httpx.AsyncClient() as client:

        async def get(**headers: str) -> httpx.Response:
            return await client.request(signed.method, signed.url, headers={**signed.headers, **headers})

        assert (await get()).content == content
        middle = size // 2
        for told, first, end in (("0-0", 0, 1), (f"{middle}-{size}", middle, size), ("-100", size - 100, size)):
            answer = await get(range=f"bytes={told}")
            assert (answer.status_code, answer.content) == (206, content[first:end])


async def test_a_model_of_scikit_learn_says_what_scikit_learn_does(hub: Api) -> None:
    measures, _ = flowers()
    await models.processed(hub, await put(hub, FOREST.read()))
    answer = await predictions(hub, DRAFT, X=measures)
    assert answer["label"].tolist() == forest().predict(measures).tolist()
    assert np.allclose(answer["probabilities"], forest().predict_proba(measures), atol=1e-6)


async def test_a_model_with_a_state_is_led_through_a_sound(hub: Api) -> None:
    """What it answers for a piece depends on the pieces before it, which the caller hands on."""
    content, dice = LISTENER.read(), np.random.default_rng(8)
    await models.processed(hub, await in_parts(hub, content))
    asked, seen = dict(LISTENER.ask(dice)), []
    for _ in range(3):
        answer, expected = await predictions(hub, DRAFT, **asked), in_process(content, **asked)
        require_same(answer, expected)
        seen.append(float(answer["output"].item()))
        asked["state"] = answer["stateN"]
    assert len({*seen}) == 3, "the same piece in another state"
