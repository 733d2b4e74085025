"""What a server and the process of a model say to each other: frames of a JSON header and the data of tensors, end to end.

The header of a request is `{"inputs": [[name, datatype, shape, bytes], …], "outputs": [name, …], "answer_bytes": n}`, that
of an answer `{"outputs": […], "compute_ns": n}` or `{"error": kind, "message": words}`. Answers come in the order of
requests.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from blobhub_server.onnx.inference.tensor import Tensor

PREFIX = struct.Struct("<IQ")
"""Before each frame: how many bytes the header has, and the data."""
MAX_HEADER_BYTES = 1 << 20

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_decode = json.JSONDecoder().decode


class BrokenFrame(Exception):
    """The other side says something that is no frame."""


def encode_frame(header: Mapping[str, Any], data: Sequence[bytes | memoryview] = ()) -> list[bytes | memoryview]:
    """A frame in pieces, to be written one after the other."""
    text = _encode(header).encode()
    return [PREFIX.pack(len(text), sum(map(len, data))) + text, *data]


def describe_tensors(tensors: Sequence[Tensor]) -> list[list[Any]]:
    """What a header says of tensors whose data follows in this order."""
    return [[each.name, each.datatype, each.shape, len(each.data)] for each in tensors]


def read_tensors(described: Sequence[Sequence[Any]], data: bytes | memoryview) -> list[Tensor]:
    """The tensors that a header describes. Raises BrokenFrame, ValueError or TypeError where the data is not theirs."""
    tensors, start, view = [], 0, memoryview(data)
    for name, datatype, shape, size in described:
        data_of = view[start : start + size]
        tensors.append(Tensor(name=name, datatype=datatype, shape=tuple(shape), data=data_of))
        start += size
    if start != len(view):
        raise BrokenFrame(f"{len(view)} bytes for tensors of {start}")
    return tensors


def decode_header(text: bytes) -> dict[str, Any]:
    """The header of a frame. Raises ValueError."""
    header = _decode(text.decode())
    if not isinstance(header, dict):
        raise ValueError("a header that is no object")
    return header


class FrameReader:
    """Puts frames together from bytes as they arrive."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.max_data_bytes = 0
        """Of one frame, whatever the other side says."""

    def feed(self, data: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Take in bytes; the frames that are whole now. Raises BrokenFrame, ValueError."""
        self._bytes += data
        while len(self._bytes) >= PREFIX.size:
            header_bytes, data_bytes = PREFIX.unpack_from(self._bytes)
            if header_bytes > MAX_HEADER_BYTES or data_bytes > self.max_data_bytes:
                raise BrokenFrame(f"a frame of {header_bytes} and {data_bytes} bytes")
            start = PREFIX.size + header_bytes
            end = start + data_bytes
            if len(self._bytes) < end:
                return
            header = bytes(self._bytes[PREFIX.size : start])
            with memoryview(self._bytes) as view:
                body = bytes(view[start:end])  # Of the bytes themselves a slice would be one copy more.
            del self._bytes[:end]
            yield decode_header(header), body
