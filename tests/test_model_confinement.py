"""What the processes that read strangers' models can do with files and with others: nothing, whatever is in the models."""

from __future__ import annotations

import base64
import json
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx_models
import pytest
from blobhub_server.onnx import confinement, landlock
from blobhub_server.onnx.inference.frame import describe_tensors, encode_frame
from blobhub_server.onnx.inference.limits import ProcessLimits
from blobhub_server.onnx.inference.process import CHILD as ANSWERING
from blobhub_server.onnx.processing.processor import CHILD as PROCESSING
from inferring import ask, doubling, engine, processes, stored, tensor
from onnx import helper
from onnx_models import magika
from scale import scaled

UNCHECKED = """
import base64, sys
from blobhub_server.onnx import confinement
from blobhub_server.onnx.processing.child import examination, loading
models = [base64.b64decode(line) for line in sys.stdin.buffer]
confinement.open_nothing_more()
for data in models:
    for load in (loading.check, lambda data: loading.load(data, examination._parse(data))):
        try:
            load(data)
        except Exception as error:
            print(error)
"""
"""Reads models as processing does, without looking for external data before."""

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
needs_landlock = pytest.mark.skipif(not landlock.version(), reason="the kernel has no Landlock")


@pytest.fixture
def secrets(tmp_path: Path) -> Iterator[list[str]]:
    """Locations of numbers in files, by every kind of path, all of them in a folder `folder`."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(bytes(4))
    (folder / "symlink.bin").symlink_to(folder / "weights.bin")
    (folder / "hardlink.bin").hardlink_to(folder / "weights.bin")
    with (folder / "sparse.bin").open("wb") as file:
        file.truncate(1 << 40)
    names = ["weights.bin", "symlink.bin", "hardlink.bin", "sparse.bin"]
    yield [*names, *(f"./{name}" for name in names), "../folder/weights.bin", str(folder / "weights.bin")]
    (folder / "sparse.bin").unlink()  # All that tests leave is searched for secrets, holes as well.


def outside(*locations: str) -> bytes:
    """A model that keeps its tensors in other files."""
    tensors = [onnx_models.external(location) for location in locations]
    for number, each in enumerate(tensors):
        each.name = f"w{number}"
    nodes = [helper.make_node("Sum", ["x", *(each.name for each in tensors)], ["y"])]
    return onnx_models.model(nodes, initializer=tensors).SerializeToString()


def as_file(path: Path, model: bytes) -> Callable[[], Any]:
    """A model as the standard input, in a file."""
    path.write_bytes(model)
    return lambda: path.open("rb")


def as_conversation(model: bytes, **inputs: np.ndarray) -> Callable[[], Any]:
    """A model as the standard input, and after it one request, as they come over the socket; nobody reads the answers."""
    tensors = [tensor(name, value) for name, value in inputs.items()]
    header = {"outputs": ["y"], "requests": 1, "answer_bytes": 1 << 20, "inputs": describe_tensors(tensors)}
    said = [len(model).to_bytes(8, "little"), model, *encode_frame(header, [each.data for each in tensors])]

    @contextmanager
    def conversing() -> Iterator[socket.socket]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            ours.sendall(b"".join(bytes(each) for each in said))
            ours.shutdown(socket.SHUT_WR)
            yield theirs

    return conversing


def traced(folder: Path, log: Path, code: list[str], stdin: Callable[[], Any]) -> list[str]:
    """What a process does with files and sockets after it has let go of them, run in a folder."""
    command = ["strace", "-f", "-qq", "-e", "trace=%file,%network,prlimit64,setrlimit", "-o", str(log)]
    given: IO[bytes] | socket.socket
    with stdin() as given:
        subprocess.run(
            [*command, sys.executable, "-I", "-B", *code],
            cwd=folder,
            env=confinement.ENVIRONMENT,
            stdin=given.fileno(),
            capture_output=True,
            check=False,
        )
    lines = log.read_text().splitlines()
    assert not any("AF_INET" in line for line in lines), "nothing is told to anybody"
    written = [line for line in lines if "O_WRONLY" in line or "O_RDWR" in line or "mkdir" in line]
    assert all("/proc/self/oom_score_adj" in line for line in written), "nothing is written"
    closed = next(n for n, line in enumerate(lines) if "RLIMIT_NOFILE, {rlim_cur=0," in line)
    return lines[closed + 1 :]


def opened(lines: list[str]) -> list[str]:
    """The calls that have opened something."""
    return [line for line in lines if re.match(r"\d+ open\w*\(", line) and "= -1" not in line]


@needs_strace
def test_processing_opens_nothing_for_a_model(tmp_path: Path, secrets: list[str]) -> None:
    code = ["-m", PROCESSING, "{}"]
    lines = traced(tmp_path, tmp_path / "sound", code, as_file(tmp_path / "model", magika().read_bytes()))
    assert opened(lines) == []
    lines = traced(tmp_path / "folder", tmp_path / "log", code, as_file(tmp_path / "model", outside(*secrets)))
    assert [line for line in lines if ".bin" in line] == []


@needs_strace
def test_a_model_that_got_past_our_checks_would_open_nothing_either(tmp_path: Path, secrets: list[str]) -> None:
    given = b"\n".join(base64.b64encode(outside(location)) for location in secrets)
    lines = traced(tmp_path / "folder", tmp_path / "log", ["-c", UNCHECKED], as_file(tmp_path / "models", given))
    assert [line for line in lines if ".bin" in line], "onnxruntime looks for them, so this shows something"
    assert opened(lines) == []


@needs_strace
@pytest.mark.parametrize("threads", [1, 2])
def test_a_model_that_answers_opens_nothing_while_it_is_loaded_and_asked(
    tmp_path: Path, secrets: list[str], threads: int
) -> None:
    code = ["-m", ANSWERING, json.dumps(asdict(ProcessLimits(threads=threads)))]
    row = np.ones((1, 4), np.float32)
    sound = as_conversation(doubling().SerializeToString(), x=row)
    lines = traced(tmp_path, tmp_path / "sound", code, sound)
    assert len([line for line in lines if "send" in line]) > 1, "it has said that it is loaded, and has answered"
    assert opened(lines) == []
    tried = []
    for number, location in enumerate(random.Random(threads).sample(secrets, scaled(len(secrets), least=1))):
        lines = traced(tmp_path / "folder", tmp_path / f"log-{number}", code, as_conversation(outside(location), x=row))
        tried += [line for line in lines if ".bin" in line]
        assert opened(lines) == []
    assert tried, "nothing but this keeps it from them: it is processing that refuses such a model"


GIVEN_UP = """
import os, signal, socket, sys
from pathlib import Path
from blobhub_server.onnx import landlock
folder = Path(sys.argv[1])
file, listening = (folder / "file").open(), int(sys.argv[2])
assert landlock.give_up_files()
tries = {
    "read": lambda: (folder / "file").read_text(),
    "list": lambda: os.listdir(folder),
    "write": lambda: (folder / "file").open("w"),
    "create": lambda: (folder / "new").open("x"),
    "remove": lambda: (folder / "file").unlink(),
    "rename": lambda: (folder / "file").rename(folder / "other"),
    "link": lambda: (folder / "other").symlink_to(folder / "file"),
    "make a folder": lambda: (folder / "more").mkdir(),
    "run": lambda: os.execv("/bin/sh", ["sh"]),
    "connect": lambda: socket.create_connection(("127.0.0.1", listening)),
    "signal": lambda: os.kill(os.getppid(), 0),
}
for name, attempt in tries.items():
    try:
        attempt()
        print(name)
    except PermissionError:
        pass
print(file.read())
"""


@needs_landlock
def test_what_landlock_takes_away_is_gone_and_what_is_open_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("open before")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [sys.executable, "-c", GIVEN_UP, str(tmp_path), str(listening.getsockname()[1])]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
    later = {"connect": 4, "signal": 6}
    expected = [name for name, version in later.items() if landlock.version() < version]
    assert ran.stdout.splitlines() == [*expected, "open before"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@needs_landlock
async def test_the_process_of_a_model_that_answers_is_under_landlock() -> None:
    async with engine() as running:
        await ask(running, stored(doubling()), x=np.ones((1, 4), np.float32))
        (process,) = processes()
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.search(r"^NoNewPrivs:\s*1$", status, re.MULTILINE), "which is what it begins with"


def test_a_kernel_without_landlock_takes_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock.sys, "platform", "darwin")
    assert landlock.version() == 0
    assert not landlock.give_up_files()
