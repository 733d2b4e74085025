"""Inference over a real channel: typed and raw tensors, one by one and in streams, for those who may read the model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import acme
import grpc
import ml_dtypes
import models
import numpy as np
import onnx_models
import pytest
from blobhub.v1 import inference_pb2 as pb
from blobhub.v1 import inference_pb2_grpc, revision_pb2
from blobhub_server.blobtypes.conformance import expect_refusal
from calling import outcome
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from inferring import DATATYPES, FLOAT, brains, doubling, identity, in_process, model, picking
from models import DRAFT
from onnx import helper
from served import Api

pytestmark = pytest.mark.either_database

Tensor = pb.InferenceTensor
X = Tensor(name="x", datatype="FP32", shape=[1, 4], floats=[1, 2, 3, 4])


def stub(api: Api) -> inference_pb2_grpc.InferenceServiceStub:
    return inference_pb2_grpc.InferenceServiceStub(api.channel)


async def infer(api: Api, *inputs: Tensor, revision: str = DRAFT, **fields: Any) -> list[Tensor]:
    request = pb.InferRequest(revision=revision, inputs=inputs, **fields)
    return list((await stub(api).Infer(request)).outputs)


async def served_model(api: Api, content: bytes, reference: str = "acme/scorer") -> None:
    """A model in the draft of a new blob."""
    await models.blob(api, reference)
    await models.stored(api, content, f"{reference}@draft")


async def test_a_real_model_predicts_what_onnxruntime_does(api: Api) -> None:
    content = onnx_models.magika().read_bytes()
    await served_model(api, content)
    inputs = np.random.default_rng(3).integers(0, 257, (2, 2048), dtype=np.int32)
    expected = in_process(content, bytes=inputs)["target_label"]
    sent = Tensor(name="bytes", datatype="INT32", shape=inputs.shape, raw=inputs.tobytes())
    (answer,) = await infer(api, sent, raw_outputs=True)
    assert (answer.name, answer.datatype, [*answer.shape]) == ("target_label", "FP32", [2, 214])
    assert np.array_equal(np.frombuffer(answer.raw, np.float32).reshape(2, 214), expected)
    sent = Tensor(name="bytes", datatype="INT32", shape=inputs.shape, integers=inputs.ravel().tolist())
    (answer,) = await infer(api, sent, outputs=["target_label"])
    assert np.array_equal(np.array(answer.floats, np.float32).reshape(2, 214), expected)


ITEMS = {
    "BOOL": ("bools", [True, False]),
    "INT8": ("integers", [-128, 127]),
    "INT16": ("integers", [-(1 << 15), (1 << 15) - 1]),
    "INT32": ("integers", [-(1 << 31), (1 << 31) - 1]),
    "INT64": ("integers", [-(1 << 63), (1 << 63) - 1]),
    "UINT8": ("unsigned_integers", [0, 255]),
    "UINT16": ("unsigned_integers", [0, (1 << 16) - 1]),
    "UINT32": ("unsigned_integers", [0, (1 << 32) - 1]),
    "UINT64": ("unsigned_integers", [0, (1 << 64) - 1]),
    "FP16": ("floats", [0.5, -65504]),
    "FP32": ("floats", [0.25, float("inf")]),
    "FP64": ("doubles", [0.1, -1e300]),
    "BYTES": ("texts", [b"", "ä🦆".encode()]),
}


async def test_items_of_every_datatype_come_back_in_the_field_that_they_were_sent_in(api: Api) -> None:
    await served_model(api, identity())
    assert set(ITEMS) == {*DATATYPES, "BYTES"}
    sent = [Tensor(name=name, datatype=name, shape=[2], **{field: items}) for name, (field, items) in ITEMS.items()]
    answers = {each.name: each for each in await infer(api, *sent)}
    for name, (field, items) in ITEMS.items():
        assert list(getattr(answers[f"{name}_out"], field)) == items
    raw = await infer(api, *sent, raw_outputs=True)
    again = [Tensor(name=each.datatype, datatype=each.datatype, shape=each.shape, raw=each.raw) for each in raw]
    assert {each.name: each for each in await infer(api, *again)} == answers


async def test_bf16_goes_in_and_out(api: Api) -> None:
    await served_model(api, brains())
    # Between 1 and 1 + 1/64 there is one number, and what lies in the middle of two goes to the even one.
    items = [0.5, 1 + 1 / 256, 1 + 3 / 256, -3e38, float("inf"), 0]
    expected = np.array(items, np.float32).astype(ml_dtypes.bfloat16)
    sent = Tensor(name="x", datatype="BF16", shape=[6], floats=items)
    whole, half = await infer(api, sent)
    assert list(whole.floats) == list(half.floats) == expected.astype(np.float32).tolist()
    raw = Tensor(name="x", datatype="BF16", shape=[6], raw=expected.tobytes())
    _, half = await infer(api, raw, raw_outputs=True)
    assert (half.datatype, half.raw) == ("BF16", expected.tobytes())
    _, half = await infer(api, Tensor(name="x", datatype="BF16", shape=[1], floats=[float("nan")]))
    assert np.isnan(half.floats[0])


async def test_bf16_of_a_model_that_takes_texts_is_refused_by_name(api: Api) -> None:
    await served_model(api, brains(texts=True))
    sent = [
        Tensor(name="x", datatype="BF16", shape=[1], floats=[2]),
        Tensor(name="t", datatype="BYTES", shape=[1], texts=[b"two"]),
    ]
    whole, text = await infer(api, *sent, outputs=["FP32", "u"])
    assert (list(whole.floats), list(text.texts)) == ([2], [b"two"])
    refused = await expect_refusal(infer(api, *sent), grpc.StatusCode.INVALID_ARGUMENT, "INFERENCE_REFUSED")
    assert "'BF16'" in refused.details()
    assert "takes texts" in refused.details()


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (Tensor(name="x", datatype="FP64", shape=[1, 4], doubles=[1, 2, 3, 4]), "expected FP32[-1,4], got FP64[1,4]"),
        (Tensor(name="x", datatype="FP32", shape=[4], floats=[1, 2, 3, 4]), "expected FP32[-1,4], got FP32[4]"),
        (Tensor(name="x", datatype="FP32", shape=[1, 4], floats=[1]), "expected 4 items for [1, 4], got 1"),
        (Tensor(name="x", datatype="FP32", shape=[1, 4]), "expected 16 bytes for FP32[1,4], got 0 bytes"),
        (Tensor(name="x", datatype="FP32", shape=[1, 4], doubles=[1]), "expected `floats` or `raw` for FP32, got `doubles`"),
        (
            Tensor(name="x", datatype="FP32", shape=[1, 4], floats=[1], raw=b"x"),
            "expected `floats` or `raw` for FP32, got `raw`, `floats`",
        ),
        (Tensor(name="x", datatype="INT8", shape=[1], integers=[128]), "has an item out of range: expected items of INT8"),
        (Tensor(name="x", datatype="BF16", shape=[1], floats=[3.4e38]), "has an item out of range: expected items of BF16"),
        (Tensor(name="x", datatype="INT4", shape=[1], raw=b"x"), "has a datatype that cannot be sent"),
        (Tensor(name="z", datatype="FP32", shape=[1], floats=[1]), "tensor 'z' is no input of the model: expected x, got z"),
    ],
)
async def test_a_tensor_that_the_signature_does_not_allow_is_refused_by_name(api: Api, sent: Tensor, says: str) -> None:
    await served_model(api, doubling().SerializeToString())
    refused = await expect_refusal(infer(api, sent), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_TENSOR")
    assert says in refused.details()
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(refused).details[0].Unpack(info)
    assert info.domain == models.ONNX
    assert set(info.metadata) == {"tensor", "expected", "got"}


async def test_what_an_operator_refuses_names_it(api: Api) -> None:
    await served_model(api, picking().SerializeToString())
    refused = await expect_refusal(
        infer(api, Tensor(name="i", datatype="INT64", shape=[1], integers=[5])),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INFERENCE_REFUSED",
    )
    assert "Gather" in refused.details()


async def test_a_published_model_answers_whoever_may_read_it(api: Api, anonymous: Api) -> None:
    await served_model(api, doubling().SerializeToString())
    commit = await acme.commit(api, DRAFT)
    await api.revisions.PublishRevision(revision_pb2.PublishRevisionRequest(revision=commit.id))
    draft = await acme.branch(api, "default", "acme/scorer")
    await models.stored(api, picking().SerializeToString(), draft.id)
    for revision in ("acme/scorer", "acme/scorer@1", commit.id):
        assert list((await infer(api, X, revision=revision))[0].floats) == [2, 4, 6, 8]
    assert await outcome(infer(anonymous, X, revision="acme/scorer")) == "UNAUTHENTICATED"
    await acme.update_blob(api, "acme/scorer", visibility="VISIBILITY_PUBLIC")
    assert list((await infer(anonymous, X, revision="acme/scorer"))[0].floats) == [2, 4, 6, 8]


async def test_what_is_no_model_is_refused(api: Api) -> None:
    await models.blob(api)
    await expect_refusal(infer(api, X), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    await acme.blob(api, "acme/pipeline", acme.WORKFLOW)
    await expect_refusal(
        infer(api, X, revision="acme/pipeline@draft"), grpc.StatusCode.FAILED_PRECONDITION, "WRONG_BLOB_TYPE"
    )


async def test_a_new_model_of_a_draft_answers_at_once(api: Api) -> None:
    await served_model(api, doubling().SerializeToString())
    await infer(api, X)
    node = helper.make_node("Neg", ["x"], ["y"])
    other = model([node], [("x", FLOAT, ["batch", 4])], [("y", FLOAT, ["batch", 4])])
    await models.stored(api, other.SerializeToString())
    assert list((await infer(api, X))[0].floats) == [-1, -2, -3, -4]


async def stream(api: Api, count: int, last: pb.StreamInferRequest | None = None) -> AsyncIterator[pb.StreamInferResponse]:
    def requests():
        for number in range(count):
            each = Tensor(name="x", datatype="FP32", shape=[1, 4], floats=[number] * 4)
            yield pb.StreamInferRequest(revision="" if number else DRAFT, inputs=[each], tag=f"tag-{number}")
        if last:
            yield last

    async for answer in stub(api).StreamInfer(requests()):
        yield answer


async def test_a_stream_of_requests_is_answered_in_order(api: Api) -> None:
    await served_model(api, doubling().SerializeToString())
    answers = [each async for each in stream(api, 100)]
    assert [each.tag for each in answers] == [f"tag-{number}" for number in range(100)]
    assert [each.outputs[0].floats[0] for each in answers] == [2 * number for number in range(100)]


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (pb.StreamInferRequest(inputs=[Tensor(name="z", datatype="FP32")]), "INVALID_TENSOR"),
        (pb.StreamInferRequest(revision=DRAFT, inputs=[X]), "INVALID_VALUE"),
        (pb.StreamInferRequest(inputs=[Tensor()]), "INVALID_REQUEST"),
    ],
)
async def test_an_error_ends_the_stream_after_the_answers_before_it(api: Api, last, reason: str) -> None:
    await served_model(api, doubling().SerializeToString())
    answers = []

    async def read() -> None:
        async for each in stream(api, 20, last):
            answers.append(each.tag)  # noqa: PERF401  what came before the error counts

    await expect_refusal(read(), grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert answers == [f"tag-{number}" for number in range(20)]


async def test_what_became_of_requests_is_counted(api: Api, anonymous: Api) -> None:
    await served_model(api, doubling().SerializeToString())
    request = pb.GetInferenceStatisticsRequest(revision=DRAFT)
    counted = (await stub(api).GetInferenceStatistics(request)).statistics
    assert (counted.loaded, counted.request_count) == (False, 0)
    assert not counted.HasField("last_request_time")
    for _ in range(3):
        await infer(api, X)
    await outcome(infer(api))
    counted = (await stub(api).GetInferenceStatistics(request)).statistics
    assert (counted.loaded, counted.request_count, counted.row_count, counted.execution_count) == (True, 3, 3, 3)
    assert [(each.reason, each.count) for each in counted.failures] == [("INVALID_TENSOR", 1)]
    assert [(each.maximum_rows, each.count) for each in counted.batches] == [(1, 3)]
    assert counted.HasField("last_request_time")
    assert counted.total_duration.ToNanoseconds() >= counted.compute_duration.ToNanoseconds() > 0
    assert await outcome(stub(anonymous).GetInferenceStatistics(request)) == "UNAUTHENTICATED"
