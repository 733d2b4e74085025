"""MLServer with the same model: from PyPI, in an environment of its own, asked by the Open Inference Protocol."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
from benchmarks.measuring import Call
from blobhub_server.onnx.oip import open_inference_pb2 as pb
from blobhub_server.onnx.oip.access import SERVICE

HERE = Path(__file__).resolve().parent
OWN_ENVIRONMENT = HERE.parents[1] / ".build" / "mlserver"
NAME = "scorer"
START_SECONDS = 60
ROW = np.array([[5.1, 3.5, 1.4, 0.2]], dtype=np.float32)
"""What the model is asked."""


def infer(channel: grpc.aio.Channel, model: str) -> Call:
    """Ask a model for one row."""
    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[ROW.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=ROW.shape)
    call = channel.unary_unary(
        f"/{SERVICE}/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )
    return lambda: call(request)


@asynccontextmanager
async def serving(folder: Path, model: bytes) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to MLServer, which answers in its own process: a hop to a worker would cost it more."""
    await asyncio.to_thread(_install)
    http, own, metrics = _free_ports(3)
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model)
    _write(
        folder / "model-settings.json", name=NAME, implementation="onnx_runtime.OnnxModel", parameters={"uri": "model.onnx"}
    )
    ports = {"http_port": http, "grpc_port": own, "metrics_port": metrics}
    _write(folder / "settings.json", host="127.0.0.1", parallel_workers=0, debug=False, **ports)
    command = [OWN_ENVIRONMENT / "bin" / "mlserver", "start", folder]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": str(HERE / "mlserver_runtime")},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{own}") as channel:
            await _until_ready(channel, process, folder / "log")
            yield channel
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait)


async def _until_ready(channel: grpc.aio.Channel, process: subprocess.Popen[bytes], log: Path) -> None:
    ready = channel.unary_unary(f"/{SERVICE}/ModelReady", response_deserializer=pb.ModelReadyResponse.FromString)
    request = pb.ModelReadyRequest(name=NAME).SerializeToString()
    async with asyncio.timeout(START_SECONDS):
        while True:
            assert process.poll() is None, log.read_text()
            try:
                if (await ready(request)).ready:
                    return
            except grpc.aio.AioRpcError:
                pass
            await asyncio.sleep(0.2)


def _install() -> None:
    """Make its environment, which is kept."""
    stamp = OWN_ENVIRONMENT / ".complete"
    if not stamp.exists():
        subprocess.run([sys.executable, "-m", "venv", OWN_ENVIRONMENT], check=True)
        pip = [OWN_ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "mlserver==1.7.1", "onnxruntime"], check=True)
        stamp.touch()


def _write(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(fields))


def _free_ports(count: int) -> Sequence[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
