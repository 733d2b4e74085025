"""Tensors: from JSON and from .npy files into requests, and out of answers as nested lists. NumPy is not needed."""

from __future__ import annotations

import ast
import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

from blobhub.v1.inference_pb2 import InferenceTensor

from blobhub_cli.failures import CommandError
from blobhub_cli.inputs import read_bytes, read_json, read_text

NPY_MAGIC = b"\x93NUMPY"
NPY_TYPES = {
    "b1": "BOOL",
    **{f"{letter}{size}": f"{name}{size * 8}" for letter, name in (("i", "INT"), ("u", "UINT")) for size in (1, 2, 4, 8)},
    "f2": "FP16",
    "f4": "FP32",
    "f8": "FP64",
}
LISTS = {
    "BOOL": "bools",
    "FP64": "doubles",
    "BYTES": "texts",
    **{f"INT{bits}": "integers" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": "unsigned_integers" for bits in (8, 16, 32, 64)},
    **dict.fromkeys(("FP16", "BF16", "FP32"), "floats"),
}
"""The list of a tensor that has the items of a datatype."""
FORM = "name=@file.npy, name:=JSON or name:=@file.json"


def read_tensor(given: str, datatypes: dict[str, str]) -> InferenceTensor:
    """The tensor of `name=@file.npy`, `name:=JSON` or `name:=@file.json`, as the model's signature has it.

    Raises CommandError.
    """
    name, equals, text = given.partition("=")
    as_json = name.endswith(":")
    name = name.removesuffix(":")
    if not equals or not name:
        raise CommandError(f"an input is {FORM}, and {given!r} is none of these")
    if name not in datatypes:
        raise CommandError(f"the model has no input {name!r}; its inputs: {', '.join(datatypes)}")
    if as_json:
        return from_json(name, datatypes[name], read_json(text, f"the input {name}"))
    if text.startswith("@"):
        content = read_bytes(text[1:])
        if content.startswith(NPY_MAGIC):
            return from_npy(name, content)
        return from_json(name, datatypes[name], read_text(text[1:]))
    return from_json(name, datatypes[name], text)


def from_json(name: str, datatype: str, value: Any) -> InferenceTensor:
    """A tensor of nested lists. Raises CommandError."""
    if datatype not in LISTS:
        raise CommandError(f"the input {name} is {datatype}, which cannot be written as JSON")
    shape, items = _flat(name, value)
    if datatype == "BYTES":
        items = [item.encode() if isinstance(item, str) else item for item in items]
    try:
        made = InferenceTensor(name=name, datatype=datatype, shape=shape)
        getattr(made, LISTS[datatype]).extend(items)
    except (TypeError, ValueError) as error:
        raise CommandError(f"the input {name} is {datatype}: {error}") from error
    return made


def _flat(name: str, value: Any) -> tuple[list[int], list[Any]]:
    """The shape of nested lists, and their items in a row. Raises CommandError where they have no shape."""
    if not isinstance(value, list):
        return [], [value]
    if not value:
        return [0], []
    inner = [_flat(name, each) for each in value]
    shape = inner[0][0]
    if any(each != shape for each, _ in inner):
        raise CommandError(f"the lists of the input {name} are not of the same length")
    return [len(value), *shape], [item for _, items in inner for item in items]


def from_npy(name: str, content: bytes) -> InferenceTensor:
    """The tensor in a file of NumPy's. Raises CommandError."""
    try:
        size, at = struct.unpack_from("<H", content, 8)[0], 10
        if content[6] >= 2:
            size, at = struct.unpack_from("<I", content, 8)[0], 12
        header = ast.literal_eval(content[at : at + size].decode("latin1"))
        order, kind = header["descr"][0], header["descr"][1:]
        shape, is_fortran = list(header["shape"]), header["fortran_order"]
    except (IndexError, KeyError, SyntaxError, TypeError, ValueError, struct.error) as error:
        raise CommandError(f"the file of the input {name} is no .npy file") from error
    if kind not in NPY_TYPES or order not in "<|" or (is_fortran and len(shape) > 1):
        raise CommandError(
            f"the file of the input {name} has {header['descr']} items{' in Fortran order' if is_fortran else ''}",
            next_step="save it as numbers, little-endian and in C order: numpy.ascontiguousarray(a)",
        )
    raw = content[at + size :]
    if len(raw) != math.prod(shape) * int(kind[1]):
        raise CommandError(f"the file of the input {name} ends too early, or too late")
    return InferenceTensor(name=name, datatype=NPY_TYPES[kind], shape=shape, raw=raw)


def to_plain(tensor: InferenceTensor) -> dict[str, Any]:
    """A tensor of an answer, its items as nested lists."""
    items: Iterable[Any] = getattr(tensor, LISTS.get(tensor.datatype, "floats"))
    if tensor.datatype == "BYTES":
        items = [item.decode(errors="replace") for item in items]
    elif tensor.datatype.startswith(("FP", "BF")):
        items = [item if math.isfinite(item) else str(item) for item in items]
    made = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
    return made | {"value": _nested(list(items), list(tensor.shape))}


def _nested(items: Sequence[Any], shape: Sequence[int]) -> Any:
    if not shape:
        return items[0] if items else None
    step = math.prod(shape[1:])
    return [_nested(items[at * step : (at + 1) * step], shape[1:]) for at in range(shape[0])]
