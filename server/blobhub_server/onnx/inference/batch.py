"""Requests that are answered together: put together along the first dimension, and their answer cut apart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from blobhub_server.onnx.inference.frame import describe_tensors, encode_frame
from blobhub_server.onnx.inference.tensor import MalformedBytes, Tensor, split_rows
from blobhub_server.turnstile import Party


class NotByRows(Exception):
    """The answer to a batch has not the rows of its requests."""


@dataclass(slots=True, eq=False)
class Request:
    """A request that waits for its answer."""

    inputs: Sequence[Tensor]
    outputs: tuple[str, ...]
    party: Party
    future: asyncio.Future[RequestAnswer]
    queue_time_ns: int
    """When it was queued, by a monotonic clock."""
    size_bytes: int
    rows: int
    """0 for one whose inputs have not all as many."""
    likeness: object
    """What is equal for requests that can be put together."""
    max_answer_bytes: int
    alone: bool = False
    """That it is not to be put together with others."""


@dataclass(frozen=True, slots=True)
class RequestAnswer:
    """What a request is answered. Times are in nanoseconds."""

    outputs: list[Tensor]
    queue_ns: int
    compute_ns: int


def make_request(
    inputs: Sequence[Tensor],
    outputs: tuple[str, ...],
    party: Party,
    future: asyncio.Future[RequestAnswer],
    queue_time_ns: int,
    max_answer_bytes: int,
) -> Request:
    """A request of inputs that the signature allows."""
    ordered = sorted(inputs, key=lambda tensor: tensor.name) if len(inputs) > 1 else inputs
    rows = {each.shape[0] if each.shape else 0 for each in ordered}
    return Request(
        inputs=ordered,
        outputs=outputs,
        party=party,
        future=future,
        queue_time_ns=queue_time_ns,
        size_bytes=sum(len(each.data) for each in ordered),
        rows=rows.pop() if len(rows) == 1 else 0,
        likeness=(outputs, *((each.name, each.shape[1:]) for each in ordered)),
        max_answer_bytes=max_answer_bytes,
    )


def answer_room(requests: Sequence[Request]) -> int:
    """How many bytes the answer to a batch may have."""
    return sum(each.max_answer_bytes for each in requests)


def encode_batch(requests: Sequence[Request]) -> list[bytes | memoryview]:
    """The frame that asks for all of them. They are alike."""
    first = requests[0]
    header = {"outputs": first.outputs, "answer_bytes": answer_room(requests)}
    if len(requests) == 1:
        return encode_frame(header | {"inputs": describe_tensors(first.inputs)}, [each.data for each in first.inputs])
    rows = sum(each.rows for each in requests)
    described, data = [], []
    for number, tensor in enumerate(first.inputs):
        pieces = [each.inputs[number].data for each in requests]
        described.append([tensor.name, tensor.datatype, (rows, *tensor.shape[1:]), sum(map(len, pieces))])
        data += pieces
    return encode_frame(header | {"inputs": described}, data)


def split_answer(outputs: Sequence[Tensor], requests: Sequence[Request]) -> list[list[Tensor]]:
    """The outputs of each request. Raises NotByRows."""
    if len(requests) == 1:
        return [list(outputs)]
    rows = [each.rows for each in requests]
    all_rows = sum(rows)
    if any(not each.shape or each.shape[0] != all_rows for each in outputs):
        raise NotByRows
    try:
        cut = [split_rows(each, rows) for each in outputs]
    except MalformedBytes as error:
        raise NotByRows from error
    return [list(each) for each in zip(*cut, strict=True)]
