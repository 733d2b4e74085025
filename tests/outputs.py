"""Every output of a run, recorded as it happens.

What a server answers is recorded by the channels of this process, whoever makes them; what it logs by pytest, which
captures standard error, that of server processes included. Databases and files are looked at where they are: stored.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import grpc
import pytest
from disguises import Leak, Scanner
from google.protobuf import descriptor_pool, message_factory
from grpc._channel import Channel as ThreadedChannel
from grpc.aio._channel import Channel
from marked import planted

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


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
            file = self._files[name] = path.open("ab", buffering=0)
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

    def close(self) -> None:
        """Write nothing more."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def leaks_in_outputs(scanner: Scanner, folder: Path) -> set[Leak]:
    """The secrets in what was recorded in a folder."""
    return scanner.files((str(path.relative_to(folder)), path) for path in _files(folder))


def size_of_outputs(folder: Path, kind: str) -> int:
    """Bytes recorded of a kind: `answers`, `errors` or `logs`."""
    return sum(path.stat().st_size for path in _files(folder) if path.is_relative_to(folder / kind))


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


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
    """Record what all channels of this process are answered. Errors of channels with threads are recorded as CallError."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in KINDS:
            for channel in (Channel, ThreadedChannel):
                patch.setattr(channel, kind, _recording(getattr(channel, kind), outputs))
        patch.setattr(grpc.aio.AioRpcError, "__init__", _recording_errors(grpc.aio.AioRpcError.__init__, outputs))
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


class Recording:
    """Records what comes out of this process's tests, from now until it is closed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._outputs = Outputs(folder)
        self._stack = ExitStack()
        self._stack.callback(self._outputs.close)
        self._stack.enter_context(recorded(self._outputs))

    def report(self, report: pytest.TestReport) -> None:
        """Record what a test, and the servers it ran, wrote; the last of its reports has all of it."""
        if report.when == "teardown":
            self._outputs.write("logs", "\n".join(text for _, text in report.sections).encode())

    def close(self) -> None:
        """End the recording; the folder has all of it."""
        self._stack.close()
