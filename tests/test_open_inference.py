"""The Open Inference Protocol: its own client works unmodified, and access is that of everything else."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import acme
import grpc
import ml_dtypes
import models
import numpy as np
import pytest
from blobhub.v1 import access_pb2, revision_pb2
from blobhub_server.blobtypes.conformance import expect_refusal, reason_of
from blobhub_server.onnx.oip import open_inference_pb2 as pb
from blobhub_server.onnx.oip.access import ACCESS, SERVICE
from blobhub_server.rpc.access_options import MethodAccess, MissingAccess, table_rules
from calling import outcome
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from inferring import brains, doubling, identity
from models import DRAFT
from onnx_models import relu
from served import Api, Served

pytestmark = pytest.mark.either_database

ROOT = Path(__file__).resolve().parent.parent
OWN_ENVIRONMENT = ROOT / ".build" / "tritonclient"


async def call(api: Api, name: str, /, **fields: Any) -> Any:
    """The answer of a method of the protocol."""
    method = descriptor_pool.Default().FindServiceByName(SERVICE).methods_by_name[name]
    request = GetMessageClass(method.input_type)(**fields)
    ask = api.channel.unary_unary(
        f"/{SERVICE}/{name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    return await ask(request)


def python_with_tritonclient() -> Path:
    """An environment of its own, which is kept: the client needs a protobuf that is older than others may have."""
    python = OWN_ENVIRONMENT / "bin" / "python"
    stamp = OWN_ENVIRONMENT / ".complete"
    if not stamp.exists():
        subprocess.run([sys.executable, "-m", "venv", OWN_ENVIRONMENT], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "tritonclient[grpc]>=2.60"], check=True)
        stamp.touch()
    return python


async def snapshot(api: Api, content: bytes) -> None:
    """A model that is published as snapshot 1, and another one in the draft after it."""
    await models.blob(api)
    await models.stored(api, content)
    commit = await acme.commit(api, DRAFT)
    await api.revisions.PublishRevision(revision_pb2.PublishRevisionRequest(revision=commit.id))
    draft = await acme.branch(api, "default", "acme/scorer")
    await models.stored(api, relu().SerializeToString(), draft.id)


async def test_tritonclient_works_unmodified(server: Served, api: Api) -> None:
    await snapshot(api, doubling().SerializeToString())
    python = await asyncio.to_thread(python_with_tritonclient)
    script = Path(__file__).with_name("triton_script.py")
    command = [python, "-I", script, server.address, api.key, "acme/scorer", "1"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["live"], said["ready"], said["model_ready"]) == (True, True, True)
    assert said["server"]["name"] == "blobhub"
    assert said["index"]["models"] == [{"name": "acme/scorer", "version": "1", "state": "READY"}]
    (taken,), (given,) = said["metadata"]["inputs"], said["metadata"]["outputs"]
    assert taken == {"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}
    assert given["name"] == "y"
    assert (said["metadata"]["name"], said["metadata"]["versions"]) == ("acme/scorer", ["1"])
    assert said["config"]["config"]["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["-1", "4"]}]
    assert said["y"] == [[0, 2, 4, 6], [8, 10, 12, 14]]
    assert said["id"] == "mine"
    status, message = said["refused"]
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "expected FP32[-1,4], got FP64[2,4]" in message
    (statistics,) = said["statistics"]["model_stats"]
    assert (statistics["inference_count"], statistics["execution_count"]) == ("2", "1")
    assert statistics["inference_stats"]["fail"]["count"] == "1"
    assert said["unknown"] == "StatusCode.NOT_FOUND"


def tensor(name: str, datatype: str, shape: list[int], **contents: Any) -> pb.ModelInferRequest.InferInputTensor:
    made = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    made.contents.CopyFrom(pb.InferTensorContents(**contents))
    return made


X = tensor("x", "FP32", [1, 4], fp32_contents=[1, 2, 3, 4])


async def test_items_in_lists_are_answered_in_lists(api: Api) -> None:
    await snapshot(api, doubling().SerializeToString())
    answer = await call(api, "ModelInfer", model_name="acme/scorer", inputs=[X], id="7")
    assert (answer.model_name, answer.model_version, answer.id) == ("acme/scorer", "", "7")
    assert list(answer.outputs[0].contents.fp32_contents) == [2, 4, 6, 8]
    assert not answer.raw_output_contents


async def test_items_of_every_datatype_come_back(api: Api) -> None:
    await models.blob(api)
    await models.stored(api, identity())
    numbers = {
        "BOOL": ("bool_contents", [True, False]),
        "INT8": ("int_contents", [-128, 127]),
        "INT16": ("int_contents", [-1, 1]),
        "INT32": ("int_contents", [-1, 1]),
        "INT64": ("int64_contents", [-1, 1 << 62]),
        "UINT8": ("uint_contents", [0, 255]),
        "UINT16": ("uint_contents", [0, 1]),
        "UINT32": ("uint_contents", [0, 1]),
        "UINT64": ("uint64_contents", [0, (1 << 64) - 1]),
        "FP32": ("fp32_contents", [0.5, 1]),
        "FP64": ("fp64_contents", [0.1, 1]),
        "BYTES": ("bytes_contents", [b"a", b""]),
    }
    inputs = [tensor(name, name, [2], **{field: items}) for name, (field, items) in numbers.items()]
    wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name=f"{name}_out") for name in numbers]
    half = {"name": "FP16", "datatype": "FP16", "shape": [2]}
    with_half = [*inputs, pb.ModelInferRequest.InferInputTensor(**half)]
    refused = await expect_refusal(
        call(api, "ModelInfer", model_name=DRAFT, inputs=with_half, outputs=wanted),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_TENSOR",
    )
    assert "expected 4 bytes for FP16[2], got 0 bytes" in refused.details()
    raw = [(await packed(api, each, numbers)) for each in numbers]
    raw.append(np.array([0.5, 2], np.float16).tobytes())
    names = (*numbers, "FP16")
    bare = [pb.ModelInferRequest.InferInputTensor(name=name, datatype=name, shape=[2]) for name in names]
    answer = await call(api, "ModelInfer", model_name=DRAFT, inputs=bare, raw_input_contents=raw)
    found = {each.name: data for each, data in zip(answer.outputs, answer.raw_output_contents, strict=True)}
    assert found == {f"{name}_out": data for name, data in zip(names, raw, strict=True)}


async def test_bf16_is_answered_in_raw_bytes(api: Api) -> None:
    await models.blob(api)
    await models.stored(api, brains())
    sent = np.array([0.5, -3e38], ml_dtypes.bfloat16)
    x = pb.ModelInferRequest.InferInputTensor(name="x", datatype="BF16", shape=[2])
    answer = await call(api, "ModelInfer", model_name=DRAFT, inputs=[x], raw_input_contents=[sent.tobytes()])
    assert [each.datatype for each in answer.outputs] == ["FP32", "BF16"]
    assert list(answer.raw_output_contents) == [sent.astype(np.float32).tobytes(), sent.tobytes()]
    config = (await call(api, "ModelConfig", name=DRAFT)).config
    assert config.input[0].data_type == pb.TYPE_BF16


async def packed(api: Api, name: str, numbers: dict[str, tuple[str, list[Any]]]) -> bytes:
    """The items of a datatype as bytes."""
    items = numbers[name][1]
    if name == "BYTES":
        return b"".join(len(each).to_bytes(4, "little") + each for each in items)
    kinds = {"BOOL": np.bool_, "FP32": np.float32, "FP64": np.float64}
    return np.array(items, kinds.get(name) or getattr(np, name.lower())).tobytes()


@pytest.mark.parametrize(
    ("fields", "reason", "says"),
    [
        ({"inputs": [X], "raw_input_contents": [b"", b""]}, "INVALID_VALUE", "2 items for 1 inputs"),
        ({"inputs": [X], "raw_input_contents": [bytes(16)]}, "INVALID_TENSOR", "`fp32_contents` or `raw` for FP32"),
        ({"inputs": [tensor("x", "FP64", [1, 4], fp64_contents=[1])]}, "INVALID_TENSOR", "expected 4 items"),
        ({"inputs": [tensor("x", "INT4", [1], int_contents=[1])]}, "INVALID_TENSOR", "a datatype that cannot be sent"),
        ({"inputs": [X], "outputs": [{"name": "z"}]}, "INVALID_TENSOR", "tensor 'z' is no output"),
        (
            {"inputs": [X], "outputs": [{"name": "y", "parameters": {"classification": {"int64_param": 3}}}]},
            "INVALID_VALUE",
            "outputs[0].parameters: `classification` is not supported",
        ),
        ({"inputs": [X], "model_version": "one"}, "INVALID_REFERENCE", "model_name: not a reference"),
        ({"inputs": [X], "model_version": "9"}, "NOT_FOUND", "acme/scorer@9"),
    ],
)
async def test_what_cannot_be_answered_is_refused(api: Api, fields: dict[str, Any], reason: str, says: str) -> None:
    await models.blob(api)
    await models.stored(api, doubling().SerializeToString())
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(api, "ModelInfer", model_name="acme/scorer", **fields)
    assert reason_of(refused.value) == reason
    assert says in refused.value.details()


async def test_access_is_that_of_the_revision(api: Api, anonymous: Api) -> None:
    await snapshot(api, doubling().SerializeToString())
    reads = ["ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"]
    for name in ("ServerLive", "ServerReady", "ServerMetadata", "RepositoryIndex"):
        assert await outcome(call(anonymous, name)) == "OK"
    for name in reads:
        assert await outcome(call(anonymous, name, name="acme/scorer")) == "UNAUTHENTICATED"
        assert await outcome(call(api, name, name="acme/scorer", version="1")) == "OK"
        assert await outcome(call(api, name, name="acme/other")) == "NOT_FOUND"
    assert await outcome(call(anonymous, "ModelInfer", model_name="acme/scorer", inputs=[X])) == "UNAUTHENTICATED"
    await acme.update_blob(api, "acme/scorer", visibility=acme.PUBLIC)
    for name in reads[:-1]:
        assert await outcome(call(anonymous, name, name="acme/scorer", version="1")) == "OK"
    assert await outcome(call(anonymous, "ModelInfer", model_name="acme/scorer", inputs=[X])) == "OK"


def test_a_table_that_differs_from_the_methods_stops_the_start() -> None:
    assert set(table_rules(SERVICE, ACCESS)) == {f"/{SERVICE}/{name}" for name in ACCESS}
    for broken in (
        {name: rule for name, rule in ACCESS.items() if name != "ModelInfer"},
        ACCESS | {"ModelForget": ACCESS["ModelReady"]},
        ACCESS | {"ModelReady": replace(ACCESS["ModelReady"], field="model")},
        ACCESS | {"ModelReady": replace(ACCESS["ModelReady"], resource="")},
        ACCESS | {"ServerLive": MethodAccess(permission=access_pb2.PERMISSION_UNSPECIFIED)},
        ACCESS | {"ServerLive": replace(ACCESS["ServerLive"], field="name")},
    ):
        with pytest.raises(MissingAccess):
            table_rules(SERVICE, broken)
