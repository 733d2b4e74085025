"""What a request has to be, by the signature of the model: checked before anything waits or is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blobhub_server.onnx.inference.errors import InvalidTensor, TensorNotServable
from blobhub_server.onnx.inference.tensor import (
    BYTES,
    ITEM_BYTES,
    MAX_ITEMS,
    MAX_TEXTS,
    MalformedBytes,
    Tensor,
    check_items,
    item_count,
)
from blobhub_server.onnx.processing.report import TensorSpec

MAX_NAMES = 10
"""How many names a message lists."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def check_inputs(self, tensors: Sequence[Tensor]) -> None:
        """Raise InvalidTensor or TensorNotServable unless these are all inputs of the model, each once and as it says."""
        specs = {each.name: each for each in self.inputs}
        seen = set()
        for tensor in tensors:
            spec = specs.get(tensor.name)
            if spec is None:
                raise InvalidTensor(tensor.name, "is no input of the model", expected=_names(self.inputs), got=tensor.name)
            if tensor.name in seen:
                raise InvalidTensor(tensor.name, "is there twice", expected="each input once", got="another one of it")
            seen.add(tensor.name)
            _check(tensor, spec)
        for name, spec in specs.items():
            if name not in seen:
                if not is_servable(spec):
                    raise TensorNotServable(name, spec.type, is_input=True)
                raise InvalidTensor(name, "is missing", expected=describe(spec), got="no such input")

    def choose_outputs(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """The names of the outputs to answer with: those wanted, or else all. Raises InvalidTensor, TensorNotServable."""
        specs = {each.name: each for each in self.outputs}
        for name in wanted:
            if name not in specs:
                raise InvalidTensor(name, "is no output of the model", expected=_names(self.outputs), got=name)
        if len(set(wanted)) < len(wanted):
            twice = next(each for each in wanted if wanted.count(each) > 1)
            raise InvalidTensor(twice, "is wanted twice", expected="each output once", got="another one of it")
        for name in wanted or specs:
            if not is_servable(specs[name]):
                raise TensorNotServable(name, specs[name].type, is_input=False)
        return tuple(wanted or specs)


def describe(spec: TensorSpec) -> str:
    """A tensor as a message says it: `FP32[-1,4]`; of an unknown number of dimensions: `FP32[…]`."""
    shape = "…" if spec.shape is None else ",".join(map(str, spec.shape))
    return f"{spec.datatype or spec.type}[{shape}]"


def is_servable(spec: TensorSpec) -> bool:
    """Whether a tensor can be sent in requests and answers."""
    return spec.datatype == BYTES or spec.datatype in ITEM_BYTES


def _names(specs: Sequence[TensorSpec]) -> str:
    more = f" and {len(specs) - MAX_NAMES} more" if len(specs) > MAX_NAMES else ""
    return ", ".join(each.name for each in specs[:MAX_NAMES]) + more or "none"


def _check(tensor: Tensor, spec: TensorSpec) -> None:
    expected = describe(spec)
    got = f"{tensor.datatype}[{','.join(map(str, tensor.shape))}]"
    if not is_servable(spec):
        raise TensorNotServable(spec.name, spec.type, is_input=True)
    if tensor.datatype != spec.datatype:
        raise InvalidTensor(tensor.name, "has another datatype", expected=expected, got=got)
    if not _fits(tensor.shape, spec.shape):
        raise InvalidTensor(tensor.name, "has another shape", expected=expected, got=got)
    items = item_count(tensor.shape)
    most = MAX_TEXTS if tensor.datatype == BYTES else MAX_ITEMS
    if items > most:
        raise InvalidTensor(tensor.name, "has too many items", expected=f"at most {most}", got=str(items))
    if tensor.datatype == BYTES:
        try:
            check_items(tensor.data, items)
        except MalformedBytes:
            expected = f"{items} items, each after its length in four bytes"
            raise InvalidTensor(
                tensor.name, "has other data than its shape says", expected=expected, got=f"{len(tensor.data)} bytes"
            ) from None
        return
    size = items * ITEM_BYTES[tensor.datatype]
    if size != len(tensor.data):
        raise InvalidTensor(
            tensor.name,
            "has other data than its shape says",
            expected=f"{size} bytes for {got}",
            got=f"{len(tensor.data)} bytes",
        )


def _fits(shape: Sequence[int], wanted: Sequence[int] | None) -> bool:
    if any(each < 0 for each in shape):
        return False
    return wanted is None or (
        len(shape) == len(wanted) and all(free in (-1, each) for each, free in zip(shape, wanted, strict=True))
    )
