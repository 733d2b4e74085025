"""Every output of a run, recorded as it happens.

What a server answers is recorded by the channels of this process, whoever makes them; what it logs by pytest, which
captures standard error, that of server processes included. Databases and files are looked at where they are: stored.py.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import grpc
import pytest
from disguises import Leak, Scanner
from google.protobuf import descriptor_pool, message_factory
from grpc.aio._channel import Channel
from marked import planted

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
LAST = "test_zz_canaries.py"


class Outputs:
    """What came out, in a folder: a file for each method, one for errors, one for logs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}

    def write(self, name: str, data: bytes) -> None:
        """Record something that came out."""
        file = self._files.get(name)
        if file is None:
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            file = self._files[name] = path.open("ab")
        file.write(data + b"\n")

    def answer(self, method: str, data: bytes) -> None:
        """Record an answer, without the API key that it hands out: that is a secret from now on."""
        kind = _hands_out_a_key(method)
        if kind is not None:
            answer = kind.FromString(data)
            planted(answer.key, f"a key of {method}")
            answer.ClearField("key")
            data = answer.SerializeToString()
        self.write("answers/" + method.strip("/").replace("/", "."), data)

    def error(self, error: grpc.aio.AioRpcError) -> None:
        """Record the status that a call ended with."""
        self.write("errors", str(error.details()).encode())
        for key, value in (*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())):
            self.write("errors", key.encode() + b": " + (value if isinstance(value, bytes) else str(value).encode()))

    def size(self, name: str) -> int:
        """Bytes recorded under a name."""
        return sum(path.stat().st_size for path in self._paths() if path.is_relative_to(self._folder / name))

    def leaks(self, scanner: Scanner) -> set[Leak]:
        """The secrets in what was recorded."""
        return scanner.files((str(path.relative_to(self._folder)), path) for path in self._paths())

    def _paths(self) -> list[Path]:
        for file in self._files.values():
            file.flush()
        return [path for path in self._folder.rglob("*") if path.is_file()]

    def close(self) -> None:
        """Forget everything."""
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._folder)


@cache
def _hands_out_a_key(method: str) -> Any:
    """The class of a method's answers, if they have a field `key`."""
    try:
        answer = descriptor_pool.Default().FindMethodByName(method.strip("/").replace("/", ".")).output_type
    except KeyError:
        return None
    return message_factory.GetMessageClass(answer) if "key" in answer.fields_by_name else None


@contextmanager
def recorded(outputs: Outputs) -> Iterator[None]:
    """Record what all channels of this process are answered."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in KINDS:
            patch.setattr(Channel, kind, _recording(getattr(Channel, kind), outputs))
        patch.setattr(grpc.aio.AioRpcError, "__init__", _recording_errors(grpc.aio.AioRpcError.__init__, outputs))
        for name in ("insecure_channel", "secure_channel"):
            patch.setattr(grpc, name, _unrecorded)
        yield


def _recording(make: Callable[..., Any], outputs: Outputs) -> Callable[..., Any]:
    def made(channel: Any, method: str, serialize: Any = None, deserialize: Any = None, *args: Any, **kwargs: Any) -> Any:
        serialize = kwargs.pop("request_serializer", serialize)
        deserialize = kwargs.pop("response_deserializer", deserialize)

        def recording(data: bytes) -> Any:
            outputs.answer(method, data)
            return data if deserialize is None else deserialize(data)

        return make(channel, method, serialize, recording, *args, **kwargs)

    return made


def _recording_errors(init: Callable[..., None], outputs: Outputs) -> Callable[..., None]:
    def made(error: grpc.aio.AioRpcError, *args: Any, **kwargs: Any) -> None:
        init(error, *args, **kwargs)
        outputs.error(error)

    return made


def _unrecorded(*_args: Any, **_kwargs: Any) -> None:
    raise AssertionError("tests use grpc.aio: what another channel is told would not be looked through for secrets")


class Recording:
    """Pytest's part: records from the start of the run to its end, and runs the search last."""

    def __init__(self, folder: Path) -> None:
        self.outputs = Outputs(folder)
        self._stack = ExitStack()
        self._stack.callback(self.outputs.close)
        self._stack.enter_context(recorded(self.outputs))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """What looks through the outputs comes last."""
        items.sort(key=lambda item: item.path.name == LAST)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record what a test, and the servers it ran, wrote; the last of its reports has all of it."""
        if report.when == "teardown":
            self.outputs.write("logs", "\n".join(text for _, text in report.sections).encode())

    def pytest_unconfigure(self) -> None:
        """End the recording, and forget it."""
        self._stack.close()


def pytest_configure(config: pytest.Config) -> None:
    """Begin to record."""
    config.pluginmanager.register(Recording(Path(tempfile.mkdtemp(prefix="bh-outputs-"))), "recording")


@pytest.fixture
def outputs(request: pytest.FixtureRequest) -> Outputs:
    """What has come out so far in this run."""
    recording: Recording = request.config.pluginmanager.get_plugin("recording")
    return recording.outputs
