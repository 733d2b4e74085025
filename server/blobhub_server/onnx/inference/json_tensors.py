"""Tensors as JSON: nested lists, whose datatype the signature says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from blobhub_server.blobtypes.json_text import MAX_VALUE_ITEMS
from blobhub_server.blobtypes.nested import NotRectangular, count_items, flatten, index_of, nest
from blobhub_server.onnx.inference.errors import InferenceExhausted, InvalidTensor, TensorNotServable
from blobhub_server.onnx.inference.signature import Signature, describe, is_servable
from blobhub_server.onnx.inference.tensor import BYTES, Tensor, item_count
from blobhub_server.onnx.inference.values import ItemOutOfRange, pack, unpack
from blobhub_server.onnx.processing.report import TensorSpec

_NO_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""What JSON has no number for, as the JSON of protobuf writes it."""


def from_json(values: Mapping[str, Any], signature: Signature) -> list[Tensor]:
    """The tensors that JSON values are, by their names. Raises InvalidTensor.

    What the signature does not have, or cannot take, comes without items: its check refuses it.
    """
    specs = {each.name: each for each in signature.inputs}
    return [_from_json(name, value, specs.get(name)) for name, value in values.items()]


def to_json(tensors: Sequence[Tensor]) -> dict[str, Any]:
    """Tensors as nested lists, by their names. Raises TensorNotServable, and InferenceExhausted before it makes too many."""
    items = len(tensors) + sum(count_items(each.shape) for each in tensors)
    if items > MAX_VALUE_ITEMS:
        raise InferenceExhausted("answer", f"the outputs are {items} items as JSON, {_bound_message(tensors)}")
    return {each.name: _to_json(each) for each in tensors}


def _bound_message(tensors: Sequence[Tensor]) -> str:
    largest = max(tensors, key=lambda each: count_items(each.shape))
    shape = f"{largest.datatype}[{','.join(map(str, largest.shape))}]"
    return f"and a value has at most {MAX_VALUE_ITEMS}: the largest, {largest.name!r}, is {shape}; ask for other outputs"


def _from_json(name: str, value: Any, spec: TensorSpec | None) -> Tensor:
    if spec is None or not is_servable(spec):
        return Tensor(name=name, datatype="", shape=(), data=b"")
    try:
        shape, items = flatten(value)
    except NotRectangular as error:
        message = "is not of one length in each dimension"
        raise InvalidTensor(name, message, expected=describe(spec), got=str(error)) from None
    if not items:
        shape = _fill_shape(shape, spec.shape)
    try:
        data = pack(spec.datatype, _read_items(spec, shape, items))
    except ItemOutOfRange as error:
        expected = f"items of {spec.datatype}"
        raise InvalidTensor(name, "has an item out of range", expected=expected, got=str(error)) from None
    return Tensor(name=name, datatype=spec.datatype, shape=shape, data=data)


def _fill_shape(shape: tuple[int, ...], wanted: Sequence[int] | None) -> tuple[int, ...]:
    """The shape of lists without items, which do not show their further dimensions: those that the signature says."""
    return (*shape, *(max(each, 0) for each in (wanted or ())[len(shape) :]))


def _read_items(spec: TensorSpec, shape: Sequence[int], items: Sequence[Any]) -> list[Any]:
    """JSON items as those of a datatype. Raises InvalidTensor at the first that is none."""
    word, read = _READERS[spec.datatype]
    made = [read(item) for item in items]
    if None in made:
        number = made.index(None)
        place = index_of(number, shape)
        got = _word(items[number]) + (f" at {place}" if place else "")
        message = "has an item that is none of its datatype"
        raise InvalidTensor(spec.name, message, expected=f"{word} for {describe(spec)}", got=got)
    return made


def _text(item: Any) -> bytes | None:
    return item.encode() if isinstance(item, str) else None


def _boolean(item: Any) -> bool | None:
    return item if isinstance(item, bool) else None


def _integer(item: Any) -> int | None:
    if isinstance(item, float) and item.is_integer():  # What an expression has divided.
        return int(item)
    return item if isinstance(item, int) and not isinstance(item, bool) else None


def _float(item: Any) -> float | None:
    if isinstance(item, str):
        return _NO_NUMBERS.get(item)
    return item if isinstance(item, int | float) and not isinstance(item, bool) else None


_READERS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    BYTES: ("texts", _text),
    "BOOL": ("true or false", _boolean),
    **dict.fromkeys(("FP16", "FP32", "FP64"), ("numbers", _float)),
    **dict.fromkeys(("INT8", "INT16", "INT32", "INT64"), ("whole numbers", _integer)),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32", "UINT64"), ("whole numbers", _integer)),
}
"""What the items of a datatype are in JSON, and what makes one of a JSON item, or nothing."""


def _word(item: Any) -> str:
    """What an item is, without the content of a text."""
    match item:
        case None:
            return "null"
        case bool():
            return "true" if item else "false"
        case int() | float():
            return str(item)
        case str():
            return "a text"
    return "an object"


def _to_json(tensor: Tensor) -> Any:
    items: Sequence[Any] = unpack(tensor.datatype, tensor.data, item_count(tensor.shape))
    if tensor.datatype == BYTES:
        try:
            items = [item.decode() for item in items]
        except UnicodeDecodeError:
            raise TensorNotServable(tensor.name, "BYTES that are no UTF-8", is_input=False) from None
    elif tensor.datatype in ("FP16", "FP32", "FP64") and not all(map(math.isfinite, items)):
        items = [item if math.isfinite(item) else _no_number(item) for item in items]
    return nest(tensor.shape, items)


def _no_number(item: float) -> str:
    return "NaN" if math.isnan(item) else "Infinity" if item > 0 else "-Infinity"
