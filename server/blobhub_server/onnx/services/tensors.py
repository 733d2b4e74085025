"""Tensors on the wire: as `InferenceTensor`, and as those of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from blobhub.v1 import inference_pb2 as pb
from google.protobuf.message import Message

from blobhub_server.onnx.inference.errors import InferenceExhausted, InvalidTensor
from blobhub_server.onnx.inference.tensor import BYTES, ITEM_BYTES, Tensor, item_count
from blobhub_server.onnx.inference.values import ItemOutOfRange, pack, unpack
from blobhub_server.rpc.value_bound import MAX_LISTED_BYTES
from blobhub_server.turnstile import Party, off_loop

LARGE_BYTES = 1 << 20
"""So many bytes are copied beside the loop."""
_INTEGERS = ("INT8", "INT16", "INT32", "INT64")
FIELDS = {
    "BOOL": "bools",
    **dict.fromkeys(_INTEGERS, "integers"),
    **{f"U{name}": "unsigned_integers" for name in _INTEGERS},
    "FP16": "floats",
    "BF16": "floats",
    "FP32": "floats",
    "FP64": "doubles",
    BYTES: "texts",
}
"""The field of an InferenceTensor that has the items of a datatype."""


def from_protos(tensors: Sequence[pb.InferenceTensor]) -> list[Tensor]:
    """The tensors of a request. Raises InvalidTensor."""
    return [from_items(each.name, each.datatype, each.shape, _fields(each), FIELDS) for each in tensors]


def from_items(
    name: str, datatype: str, shape: Sequence[int], given: Mapping[str, Any], fields: Mapping[str, str]
) -> Tensor:
    """A tensor whose items are given in at most one field: in `raw`, or in the one that `fields` has for the datatype.

    Raises InvalidTensor.
    """
    if datatype not in ITEM_BYTES and datatype != BYTES:
        expected = f"one of {', '.join([*ITEM_BYTES, BYTES])}"
        raise InvalidTensor(name, "has a datatype that cannot be sent", expected=expected, got=datatype)
    fits = fields.get(datatype, "raw")
    if unfit := [each for each in given if each not in ("raw", fits)] or (list(given) if len(given) > 1 else []):
        expected = f"`{fits}` or `raw` for {datatype}" if fits != "raw" else f"`raw` for {datatype}"
        raise InvalidTensor(name, "has its items elsewhere", expected=expected, got=f"`{'`, `'.join(unfit)}`")
    if fits == "raw" or fits not in given:
        return Tensor(name=name, datatype=datatype, shape=tuple(shape), data=given.get("raw", b""))
    items = given[fits]
    if len(items) != item_count(shape):
        expected, got = f"{item_count(shape)} items for {list(shape)}", f"{len(items)}"
        raise InvalidTensor(name, "has other items than its shape says", expected=expected, got=got)
    try:
        return Tensor(name=name, datatype=datatype, shape=tuple(shape), data=pack(datatype, items))
    except ItemOutOfRange as error:
        raise InvalidTensor(name, "has an item out of range", expected=f"items of {datatype}", got=str(error)) from None


Answer = TypeVar("Answer", bound=Sequence[Message])


async def convert(
    outputs: Sequence[Tensor], work: Callable[..., Answer], max_bytes: int, party: Party, *, raw: bool
) -> Answer:
    """The outputs of a model as messages, as `work(raw=…)` makes them; many items are converted beside the loop.

    Raises InferenceExhausted for what is too large to be sent: in a list a small number may take ten bytes.
    """
    size = size_of(outputs)
    if raw:
        return await off_loop(size if size > LARGE_BYTES else 0, party, partial(work, raw=True))
    if size > MAX_LISTED_BYTES:
        message = f"the answer has {size} bytes, and lists of numbers are for {MAX_LISTED_BYTES}; ask for it in raw bytes"
        raise InferenceExhausted("answer", message)

    def make() -> Answer:
        made = work(raw=False)
        length = sum(each.ByteSize() for each in made)
        if length > max_bytes:
            message = (
                f"the answer has {length} bytes in lists of numbers; at most {max_bytes} can be sent; ask for raw bytes"
            )
            raise InferenceExhausted("answer", message)
        return made

    return await off_loop(size, party, make)


def to_protos(tensors: Iterable[Tensor], *, raw: bool) -> list[pb.InferenceTensor]:
    """The tensors of an answer; their items in `raw` or in the fields for their datatypes."""
    return [_to_proto(each, raw=raw) for each in tensors]


def _to_proto(tensor: Tensor, *, raw: bool) -> pb.InferenceTensor:
    made = pb.InferenceTensor(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    if raw:
        made.raw = bytes(tensor.data)
    else:
        items = unpack(tensor.datatype, tensor.data, item_count(tensor.shape))
        getattr(made, FIELDS[tensor.datatype]).extend(items)
    return made


def size_of(tensors: Iterable[Tensor]) -> int:
    """The bytes of tensors' items."""
    return sum(len(each.data) for each in tensors)


def _fields(tensor: pb.InferenceTensor) -> dict[str, Any]:
    """The fields that have items, by name."""
    given: dict[str, Any] = {"raw": tensor.raw} if tensor.raw else {}
    return given | {name: items for name in _LISTS if (items := getattr(tensor, name))}


_LISTS = tuple(dict.fromkeys(FIELDS.values()))
