"""A model that answers: onnxruntime, and what goes in and comes out of it."""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from blobhub_server.onnx.inference.frame import describe_tensors, encode_frame, read_tensors
from blobhub_server.onnx.inference.limits import Batching, ProcessLimits
from blobhub_server.onnx.inference.tensor import BYTES, Tensor, item_count, pack_items, unpack_items
from blobhub_server.onnx.refusal import MAX_MESSAGE_CHARACTERS, quoted
from blobhub_server.onnx.runtime import is_about_memory, load_runtime, open_session, plain_words

# The library is read from its files, which cannot be opened once a model is there.
_runtime = load_runtime()

_TYPES = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    # Two bytes without a meaning: numpy has no such numbers, and nothing is done with them here.
    "BF16": np.dtype("V2"),
}
_BFLOAT16, _BFLOATS = 16, "tensor(bfloat16)"
"""ONNX's number of the type, and what onnxruntime calls tensors of it."""
_DATATYPES = {dtype: name for name, dtype in _TYPES.items()}
_NODE = re.compile(r"while running (?P<operator>\w+) node\. Name:'(?P<node>[^']*)'")
_BATCH_KEY, _BATCH_ROWS = "blobhub.batch", "rows"


class AnswerRefused(Exception):
    """There is no answer: the kind of trouble, and words for the caller."""

    def __init__(self, kind: str, message: str, **more: str) -> None:
        super().__init__(message)
        self.said = {"error": kind, "message": message[:MAX_MESSAGE_CHARACTERS], **more}


class UnloadableModel:
    """A model that onnxruntime does not load: it answers nothing."""

    def __init__(self, said: str) -> None:
        kind = "memory" if is_about_memory(said) else "unloadable"
        self.description = {"error": kind, "message": plain_words(said)[:MAX_MESSAGE_CHARACTERS]}

    def answer(self, header: Mapping[str, Any], data: bytes) -> Sequence[bytes | memoryview]:
        """Say why."""
        return encode_frame(self.description)


class LoadedModel:
    """A model that answers."""

    def __init__(self, session: Any, limits: ProcessLimits) -> None:
        self._session = session
        self._limits = limits
        self._has_bfloats = any(each.type == _BFLOATS for each in [*session.get_inputs(), *session.get_outputs()])
        self._bfloat_outputs = {each.name for each in session.get_outputs() if each.type == _BFLOATS}
        self.description = {"batchable": _is_batchable(session, limits.batching)}

    def answer(self, header: Mapping[str, Any], data: bytes) -> Sequence[bytes | memoryview]:
        """The frame that answers a request."""
        try:
            feeds = {each.name: _to_array(each) for each in read_tensors(header["inputs"], data)}
            start = time.perf_counter_ns()
            arrays = self._run(header["outputs"], feeds)
            taken = time.perf_counter_ns() - start
            _require_room(arrays, header["answer_bytes"])
            outputs = [_to_tensor(name, array) for name, array in zip(header["outputs"], arrays, strict=True)]
        except AnswerRefused as refused:
            return encode_frame(refused.said)
        except MemoryError:
            return encode_frame(_no_memory(self._limits).said)
        described = {"outputs": describe_tensors(outputs), "compute_ns": taken}
        return encode_frame(described, [each.data for each in outputs])

    def _run(self, outputs: Sequence[str], feeds: Mapping[str, Any]) -> Sequence[Any]:
        try:
            if self._has_bfloats:
                return self._run_values(outputs, feeds)
            return self._session.run(outputs, feeds)  # type: ignore[no-any-return]
        except (MemoryError, AnswerRefused):
            raise
        except Exception as error:  # The types of onnxruntime's errors have no common base.
            said = str(error)
            if is_about_memory(said):
                raise _no_memory(self._limits) from error
            node = _NODE.search(said)
            raise AnswerRefused("refused", plain_words(said), **node.groupdict() if node else {}) from error

    def _run_values(self, outputs: Sequence[str], feeds: Mapping[str, Any]) -> Sequence[Any]:
        """The same where there is BF16, of which onnxruntime takes and gives no arrays: it goes as values of its own."""
        mixed = {name: _to_value(array) if array.dtype == _TYPES["BF16"] else array for name, array in feeds.items()}
        if self._bfloat_outputs.isdisjoint(outputs):
            return self._session.run(outputs, mixed)  # type: ignore[no-any-return]
        if texts := [name for name, array in feeds.items() if array.dtype == object]:
            # All inputs have to be such values then, and there is no way to make one of texts.
            wanted = next(name for name in outputs if name in self._bfloat_outputs)
            message = (
                f"output {quoted(wanted)} is BF16, which cannot be had of a model that takes texts ({quoted(texts[0])})"
            )
            raise AnswerRefused("refused", message, tensor=wanted)
        values = {name: _to_value(array) for name, array in feeds.items()}
        return [*map(_from_value, self._session.run_with_ort_values(outputs, values))]


def load(data: bytes, limits: ProcessLimits) -> LoadedModel | UnloadableModel:
    """The model that these bytes are."""
    try:
        return LoadedModel(open_session(data, threads=limits.threads), limits)
    except MemoryError:
        return UnloadableModel("bad_alloc")
    except Exception as error:  # as above
        return UnloadableModel(str(error))


def _require_room(arrays: Sequence[Any], most: int) -> None:
    size = sum(each.nbytes for each in arrays if isinstance(each, np.ndarray))
    if size > most:
        raise AnswerRefused("too_large", f"the answer has {size} bytes; at most {most} can be sent")


def _no_memory(limits: ProcessLimits) -> AnswerRefused:
    return AnswerRefused("memory", f"the model took more than {limits.max_memory_bytes >> 20} MiB of memory to answer this")


def _is_batchable(session: Any, batching: Batching) -> bool:
    """Whether requests may be put together along the first dimension, and answers cut apart."""
    if batching is Batching.OFF:
        return False
    arguments = [*session.get_inputs(), *session.get_outputs()]
    first = [each.shape[0] if each.shape else 0 for each in arguments]
    if any(isinstance(each, int) for each in first) or not all(each.type.startswith("tensor(") for each in arguments):
        return False
    told = session.get_modelmeta().custom_metadata_map.get(_BATCH_KEY)
    if told is not None:
        return bool(told == _BATCH_ROWS)
    return batching is Batching.FREE or (len(set(first)) == 1 and "batch" in str(first[0]).lower())


def _to_array(tensor: Tensor) -> Any:
    if tensor.datatype == BYTES:
        try:
            items = [each.decode() for each in unpack_items(tensor.data, item_count(tensor.shape))]
        except UnicodeDecodeError:
            message = f"input {quoted(tensor.name)} has an item that is not UTF-8"
            raise AnswerRefused("refused", message, tensor=tensor.name) from None
        array = np.empty(len(items), dtype=object)
        array[:] = items
        return array.reshape(tensor.shape)
    array = np.frombuffer(tensor.data, dtype=_TYPES[tensor.datatype]).reshape(tensor.shape)
    # Native code expects 0 and 1 as truth values, and anything may have been sent.
    return array.view(np.uint8) != 0 if tensor.datatype == "BOOL" else array


def _to_tensor(name: str, array: Any) -> Tensor:
    if not isinstance(array, np.ndarray):
        raise AnswerRefused("refused", f"output {quoted(name)} is no tensor", tensor=name)
    if array.dtype.kind in "OU":
        items = pack_items([str(each).encode() for each in array.ravel()])
        return Tensor(name=name, datatype=BYTES, shape=array.shape, data=items)
    datatype = _DATATYPES.get(array.dtype)
    if datatype is None:
        raise AnswerRefused("refused", f"output {quoted(name)} is of a type that cannot be sent", tensor=name)
    return Tensor(name=name, datatype=datatype, shape=array.shape, data=array.tobytes())


def _to_value(array: Any) -> Any:
    """An array as a value of onnxruntime, on the same memory: the value holds on to it."""
    array = np.require(array, requirements="A")
    if array.dtype == _TYPES["BF16"]:
        return _runtime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), _BFLOAT16)
    return _runtime.OrtValue.ortvalue_from_numpy(array)


def _from_value(value: Any) -> Any:
    """An output as an array. onnxruntime makes none of BF16, so its bytes are copied from where they are."""
    if value.data_type() != _BFLOATS:
        return value.numpy() if value.is_tensor() else value
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(data, _TYPES["BF16"]).reshape(value.shape())
