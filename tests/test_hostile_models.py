"""Hostile models beside an honest caller, who is answered meanwhile: how much later, is printed."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from pathlib import Path

import grpc
import models
import numpy as np
from blobhub.v1 import inference_pb2, inference_pb2_grpc
from blobhub_server.blobtypes.conformance import reason_of
from figures import Figure
from honest import honestly
from inferring import FLOAT, INT64, filling, looping, model
from onnx import ModelProto, helper
from onnx_hostile import CRASHING, hostile
from scale import scaled
from served import Api, ServerProcess, connected

SECONDS = scaled(30, least=3)
MOST_SECONDS = 1
"""How long a model may compute."""


def dividing() -> ModelProto:
    """One number divided by another."""
    nodes = [helper.make_node("Div", ["a", "b"], ["q"]), helper.make_node("Cast", ["q"], ["y"], to=FLOAT)]
    return model(nodes, [("a", INT64, [1]), ("b", INT64, [1])], [("y", FLOAT, [1])])


REQUESTS: dict[str, tuple[ModelProto, dict[str, list[int]]]] = {
    "loops": (looping(), {"n": [1 << 62]}),
    "fills": (filling(), {"n": [25 << 30]}),
    "crashes": (dividing(), dict(zip("ab", ([each] for each in CRASHING), strict=True))),
}
"""Models that are sound until they are asked this: for ever, for 100 GB, and for what kills their process."""


def asking(name: str) -> inference_pb2.InferRequest:
    """The request that a model is hostile at."""
    inputs = [
        inference_pb2.InferenceTensor(
            name=each, datatype="INT64", shape=[] if name == "loops" else [1], raw=np.array(value, np.int64).tobytes()
        )
        for each, value in REQUESTS[name][1].items()
    ]
    return inference_pb2.InferRequest(revision=f"{name}/scorer@draft", inputs=inputs)


class Hostility:
    """Those who send hostile models and hostile requests, until a time."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.refused: Counter[str] = Counter()
        self.processed = 0

    async def send(self, end_time: float) -> None:
        """Models, one after the other."""
        for case in itertools.cycle(each for each in hostile() if each.data):
            if time.monotonic() > end_time:
                return
            operation = await models.put(self.api, case.data)
            assert (await models.failure(self.api, operation))[1] == case.reason, case.name
            self.processed += 1

    async def ask(self, name: str, end_time: float) -> None:
        """Requests to one model, one after the other. It rests between its crashes."""
        stub = inference_pb2_grpc.InferenceServiceStub(self.api.channel)
        while time.monotonic() < end_time:
            try:
                await stub.Infer(asking(name))
                raise AssertionError("it was answered")
            except grpc.aio.AioRpcError as error:
                self.refused[reason_of(error)] += 1
            await asyncio.sleep(0.02)


async def test_an_honest_caller_is_answered_beside_hostile_models(tmp_path: Path, figure: Figure) -> None:
    log = tmp_path / "log"
    server = ServerProcess(
        tmp_path / "data", fresh=True, log=log, log_level="info", inference_seconds=MOST_SECONDS, inference_process_mib=1024
    )
    async with server.running(), connected(server.address, server.admin_key) as api:
        await models.blob(api)
        for name, (made, _) in REQUESTS.items():
            await models.blob(api, f"{name}/scorer")
            await models.stored(api, made.SerializeToString(), f"{name}/scorer@draft")
        hostility = Hostility(api)
        async with honestly(server.address, server.admin_key) as honest:
            begin_time = time.monotonic()
            await asyncio.sleep(SECONDS)
            quiet_end_time = time.monotonic()
            end_time = quiet_end_time + SECONDS
            await asyncio.gather(hostility.send(end_time), *(hostility.ask(name, end_time) for name in REQUESTS))
            hostile_end_time = time.monotonic()
            report = await honest.end()
    assert report.failures == []
    assert hostility.processed
    assert set(hostility.refused) <= {"INFERENCE_EXHAUSTED", "INFERENCE_CRASHED", "INFERENCE_RESTING"}
    assert "internal_error" not in log.read_text(encoding="utf-8")
    quiet_ms = report.p99_ms(begin_time, quiet_end_time)
    beside_ms = report.p99_ms(quiet_end_time, hostile_end_time)
    figure(
        f"GetBlob p99 {quiet_ms:.1f} ms when quiet, and {beside_ms:.1f} ms, {beside_ms / quiet_ms:.1f} × quiet, beside "
        f"{hostility.processed} hostile models that were processed and {hostility.refused.total()} hostile requests: "
        f"{dict(hostility.refused)}"
    )
