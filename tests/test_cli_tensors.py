"""Tensors on the command line: JSON and NumPy's files, read without NumPy, and answers as nested lists."""

from __future__ import annotations

import io

import numpy
import pytest
from blobhub.v1.inference_pb2 import InferenceTensor
from blobhub_cli.failures import CommandError
from blobhub_cli.tensors import NPY_TYPES, from_json, from_npy, read_tensor, to_plain


def saved(array: numpy.ndarray) -> bytes:
    """An array as numpy.save writes it."""
    file = io.BytesIO()
    numpy.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "datatype"), NPY_TYPES.items())
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 1, 3)])
def test_a_file_of_numpy_is_read_as_it_is(kind: str, datatype: str, shape: tuple[int, ...]) -> None:
    array = numpy.arange(numpy.prod(shape, dtype=int)).reshape(shape).astype(kind)
    read = from_npy("x", saved(array))
    assert (read.datatype, tuple(read.shape), read.raw) == (datatype, shape, array.tobytes())


@pytest.mark.parametrize(
    "content",
    [
        saved(numpy.arange(3, dtype=">i4")),
        saved(numpy.asfortranarray(numpy.ones((2, 3)))),
        saved(numpy.array(["text"])),
        saved(numpy.ones(3))[:-1],
        saved(numpy.ones(3))[:20],
        b"\x93NUMPY",
    ],
    ids=["big-endian", "Fortran", "text", "too short", "no header", "no more"],
)
def test_a_file_that_is_not_plain_numbers_is_refused(content: bytes) -> None:
    with pytest.raises(CommandError, match="the file of the input x"):
        from_npy("x", content)


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("INT64", [[2**63 - 1], [-(2**63)]]),
        ("UINT64", [2**64 - 1]),
        ("FP32", [[[0.5, 1.5]]]),
        ("FP64", 0.1),
        ("BOOL", [True, False]),
        ("BYTES", ["ä", ""]),
        ("INT8", []),
    ],
)
def test_nested_lists_come_back_as_they_went_in(datatype: str, value: object) -> None:
    assert to_plain(from_json("x", datatype, value))["value"] == value


@pytest.mark.parametrize(("datatype", "value"), [("INT8", [[1], [2, 3]]), ("INT8", ["a"]), ("FP32", [[1], 2]), ("", [1])])
def test_lists_that_are_no_tensor_are_refused(datatype: str, value: object) -> None:
    with pytest.raises(CommandError):
        from_json("x", datatype, value)


def test_numbers_that_json_has_not_are_words() -> None:
    tensor = InferenceTensor(name="y", datatype="FP32", shape=[2], floats=[float("nan"), 1])
    assert to_plain(tensor)["value"] == ["nan", 1]


def test_an_input_that_the_model_has_not_is_refused_with_those_it_has() -> None:
    with pytest.raises(CommandError, match="its inputs: x, y"):
        read_tensor("z:=1", {"x": "FP32", "y": "FP32"})
    with pytest.raises(CommandError, match="is none of these"):
        read_tensor("z", {"x": "FP32"})
