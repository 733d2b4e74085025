"""Models answer as onnxruntime does in one process, whoever asks together, and only to what their signatures allow."""

from __future__ import annotations

import asyncio
import resource

import numpy as np
import onnx_models
import pytest
from blobhub_server.onnx.inference.engine import InferenceEngine, StoredModel
from blobhub_server.onnx.inference.errors import InferenceError, InferenceRefused, InvalidTensor, TensorNotServable
from blobhub_server.onnx.inference.limits import Batching
from inferring import (
    DATATYPES,
    FLOAT,
    INT64,
    array,
    ask,
    doubling,
    engine,
    in_process,
    limited,
    model,
    picking,
    processes,
    raw,
    stored,
    summing,
    tensor,
)
from onnx import TensorProto, helper

ONNX_TYPES = {
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
}
TYPES = {name: (ONNX_TYPES.get(name) or getattr(TensorProto, name), kind) for name, kind in DATATYPES.items()}


async def test_a_real_model_answers_as_onnxruntime_does_in_this_process() -> None:
    data = onnx_models.magika().read_bytes()
    inputs = np.random.default_rng(1).integers(0, 257, (3, 2048), dtype=np.int32)
    async with engine() as running:
        answer = await ask(running, stored(data), bytes=inputs)
    assert np.array_equal(answer["target_label"], in_process(data, bytes=inputs)["target_label"])


async def test_a_model_with_several_inputs_takes_them_in_any_order_and_answers_with_the_outputs_wanted() -> None:
    nodes = [helper.make_node("MatMul", ["a", "b"], ["p"]), helper.make_node("Add", ["p", "c"], ["s"])]
    inputs = [("b", FLOAT, [3, 2]), ("a", FLOAT, ["n", 3]), ("c", FLOAT, [2])]
    made = model(nodes, inputs, [("p", FLOAT, ["n", 2]), ("s", FLOAT, ["n", 2])])
    a, b, c = (np.arange(size, dtype=np.float32).reshape(shape) for size, shape in ((6, (2, 3)), (6, (3, 2)), (2, (2,))))
    async with engine() as running:
        answer = await ask(running, stored(made), c=c, a=a, b=b)
        assert list(answer) == ["p", "s"]
        assert np.array_equal(answer["s"], a @ b + c)
        assert list(await ask(running, stored(made), outputs=["s"], a=a, b=b, c=c)) == ["s"]


async def test_every_datatype_comes_back_as_it_went_in() -> None:
    names = [*TYPES, "BYTES"]
    types = [*(each for each, _ in TYPES.values()), TensorProto.STRING]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names]
    inputs = [(name, kind, ["n", 2]) for name, kind in zip(names, types, strict=True)]
    made = model(nodes, inputs, [(f"{name}_out", kind, ["n", 2]) for name, kind, _ in inputs])
    sent = {name: np.array([[0, 1], [1, 2]]).astype(kind) for name, (_, kind) in TYPES.items()}
    sent["BYTES"] = np.array([["", "ä"], ["two\0", "🦆" * 100]], dtype=object)
    async with engine() as running:
        answer = await ask(running, stored(made), **sent)
    assert {name.removesuffix("_out") for name in answer} == set(names)
    for name, value in sent.items():
        assert np.array_equal(answer[f"{name}_out"], value)
        assert answer[f"{name}_out"].dtype == value.dtype


async def test_truth_values_are_0_or_1_whatever_was_sent() -> None:
    made = model(
        [helper.make_node("Identity", ["x"], ["y"])], [("x", TensorProto.BOOL, [3])], [("y", TensorProto.BOOL, [3])]
    )
    async with engine() as running:
        answer = await running.infer(stored(made), [raw("x", "BOOL", (3,), b"\x00\x07\xff")], (), ("o", "c"))
    assert bytes(answer.outputs[0].data) == b"\x00\x01\x01"


async def ask_together(running: InferenceEngine, model: StoredModel, count: int, **more: int) -> list[np.ndarray]:
    """What so many callers are answered who ask at once, each with rows of its own."""
    rows = [np.full((1 + number % 3, 4), number, np.float32) for number in range(count)]
    answers = await asyncio.gather(
        *(ask(running, model, ("organization", str(number)), x=each) for number, each in enumerate(rows))
    )
    return [each["y"] for each in answers]


async def test_requests_of_many_callers_are_answered_together_and_each_as_if_it_were_alone() -> None:
    made = stored(doubling())
    async with engine() as running:
        answers = await ask_together(running, made, 200)
        counted = running.statistics(made.organization_id, made.digest)
    for number, answer in enumerate(answers):
        assert np.array_equal(answer, np.full((1 + number % 3, 4), 2 * number))
    assert counted.request_count == 200
    assert counted.row_count == sum(1 + number % 3 for number in range(200))
    assert counted.execution_count < 20


@pytest.mark.parametrize(
    ("made", "batching", "together"),
    [
        (doubling("n"), Batching.NAMED, False),
        (doubling("n"), Batching.FREE, True),
        (doubling("batch"), Batching.OFF, False),
        (doubling("n", {"blobhub.batch": "rows"}), Batching.NAMED, True),
        (doubling("batch", {"blobhub.batch": "none"}), Batching.FREE, False),
        (summing("n"), Batching.NAMED, False),
    ],
)
async def test_the_model_and_the_setting_say_whether_requests_are_answered_together(made, batching, together) -> None:
    model = stored(made)
    async with engine(limited({"batching": batching})) as running:
        answers = await ask_together(running, model, 20)
        counted = running.statistics(model.organization_id, model.digest)
    for number, answer in enumerate(answers):
        rows = np.full((1 + number % 3, 4), number, np.float32)
        assert np.array_equal(answer, in_process(made, x=rows)["y"])
    assert (counted.execution_count < 20) is together


async def test_a_request_that_the_model_refuses_does_not_spoil_those_it_was_put_together_with() -> None:
    made = stored(picking())

    async def pick(index: int) -> float | InferenceError:
        try:
            return float((await ask(running, made, ("organization", str(index)), i=np.array([index])))["y"][0])
        except InferenceError as error:
            return error

    async with engine() as running:
        await pick(0)
        answers = await asyncio.gather(*map(pick, [0, 1, 2, 7, 0]))
    assert answers[:3] + answers[4:] == [10, 20, 30, 10]
    assert isinstance(answers[3], InferenceRefused)
    assert answers[3].metadata == {"operator": "Gather", "node": "pick"}
    assert "/onnxruntime" not in answers[3].message


async def test_one_process_is_started_for_all_who_wait_for_a_model() -> None:
    made = stored(doubling())
    async with engine() as running:
        await ask_together(running, made, 10)
        assert len(processes()) == 1


async def test_the_process_of_a_model_opens_nothing_once_it_is_loaded() -> None:
    made = stored(doubling())
    async with engine() as running:
        await ask_together(running, made, 1)
        (process,) = processes()
        assert process.rlimit(resource.RLIMIT_NOFILE) == (0, 0)
        assert process.rlimit(resource.RLIMIT_FSIZE) == (0, 0)
    assert not process.is_running()


async def test_models_of_different_organizations_share_no_process() -> None:
    async with engine() as running:
        for organization_id in ("one", "other"):
            await ask_together(running, stored(doubling(), organization_id), 1)
        assert len(processes()) == 2


X = tensor("x", np.zeros((2, 4), np.float32))


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ([], "tensor 'x' is missing: expected FP32[-1,4], got no such input"),
        ([X, X], "tensor 'x' is there twice: expected each input once, got another one of it"),
        ([X, tensor("z", np.zeros(1))], "tensor 'z' is no input of the model: expected x, got z"),
        ([tensor("x", np.zeros((2, 4)))], "tensor 'x' has another datatype: expected FP32[-1,4], got FP64[2,4]"),
        ([tensor("x", np.zeros((2, 3), np.float32))], "tensor 'x' has another shape: expected FP32[-1,4], got FP32[2,3]"),
        ([raw("x", "FP32", (-1, 4), b"")], "tensor 'x' has another shape: expected FP32[-1,4], got FP32[-1,4]"),
        (
            [raw("x", "FP32", (2, 4), bytes(31))],
            "tensor 'x' has other data than its shape says: expected 32 bytes for FP32[2,4], got 31 bytes",
        ),
        ([raw("x", "FP32", (1 << 60, 4), b"")], "tensor 'x' has too many items: expected at most 1099511627776, got"),
    ],
)
def test_a_request_that_the_signature_does_not_allow_is_refused_by_the_tensor(sent, says: str) -> None:
    with pytest.raises(InvalidTensor) as refused:
        stored(doubling()).signature.check_inputs(sent)
    assert refused.value.message.startswith(says)
    assert refused.value.metadata["tensor"] in ("x", "z")


@pytest.mark.parametrize("data", [b"", b"\x01\x00\x00\x00", b"\x01\x00\x00\x00ab", b"\x01\x00\x00\x00a\x00\x00\x00\x00"])
def test_texts_that_are_cut_short_or_too_many_are_refused(data: bytes) -> None:
    made = stored(model([helper.make_node("Identity", ["x"], ["y"])], [("x", 8, [1])], [("y", 8, [1])]))
    with pytest.raises(InvalidTensor, match="1 items, each after its length in four bytes"):
        made.signature.check_inputs([raw("x", "BYTES", (1,), data)])


def test_outputs_that_there_are_not_or_that_cannot_be_sent_are_refused() -> None:
    signature = stored(doubling()).signature
    with pytest.raises(InvalidTensor, match="tensor 'z' is no output of the model: expected y, got z"):
        signature.choose_outputs(["z"])
    with pytest.raises(InvalidTensor, match="wanted twice"):
        signature.choose_outputs(["y", "y"])
    zipped = helper.make_node("ZipMap", ["x"], ["m"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    made = model([zipped, helper.make_node("Identity", ["x"], ["y"])], [("x", FLOAT, [1, 2])], [("y", FLOAT, [1, 2])])
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    output = made.graph.output.add(name="m").type.sequence_type.elem_type.map_type
    output.key_type, output.value_type.tensor_type.elem_type = INT64, FLOAT
    signature = stored(made).signature
    with pytest.raises(TensorNotServable, match=r"gives 'm' of the type seq\(map\(int64,tensor\(float\)\)\)"):
        signature.choose_outputs([])
    assert signature.choose_outputs(["y"]) == ("y",)


async def test_a_text_that_is_not_utf_8_is_refused() -> None:
    made = stored(model([helper.make_node("Identity", ["x"], ["y"])], [("x", 8, [1])], [("y", 8, [1])]))
    async with engine() as running:
        with pytest.raises(InferenceRefused, match="not UTF-8"):
            await running.infer(made, [raw("x", "BYTES", (1,), b"\x01\x00\x00\x00\xff")], (), ("o", "c"))
        assert array(tensor("x", ["a"]))[0] == "a"
