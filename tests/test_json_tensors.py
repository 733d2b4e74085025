"""Tensors as nested lists, without a server: what goes in comes out, and what is none is refused by its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from blobhub_server.blobtypes.nested import NotRectangular, count_items, flatten, nest
from blobhub_server.onnx.inference.errors import InferenceExhausted, InvalidTensor, TensorNotServable
from blobhub_server.onnx.inference.json_tensors import from_json, to_json
from blobhub_server.onnx.inference.signature import Signature
from blobhub_server.onnx.inference.tensor import BYTES, Tensor, pack_items
from blobhub_server.onnx.processing.report import TensorSpec
from blobhub_server.onnx.questions import make_outputs
from hypothesis import given
from hypothesis import strategies as st
from inferring import DATATYPES, array

SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def spec(datatype: str, shape: tuple[int, ...] | None) -> Signature:
    return Signature(inputs=(TensorSpec(name="x", datatype=datatype, type="", shape=shape),), outputs=())


def read(datatype: str, shape: tuple[int, ...] | None, value: Any) -> Tensor:
    (made,) = from_json({"x": value}, spec(datatype, shape))
    return made


@given(SHAPES)
def test_nested_lists_have_the_shape_and_the_items_that_numpy_says(shape: tuple[int, ...]) -> None:
    numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    nested = numbers.tolist()
    assert nest(shape, numbers.ravel().tolist()) == nested
    found, items = flatten(nested)
    assert items == numbers.ravel().tolist()
    assert found == shape[: len(found)]  # Empty lists do not show what is in them.
    assert (found == shape) or 0 in found
    assert count_items(shape) == all_items(nested)


def all_items(nested: Any) -> int:
    return len(nested) + sum(map(all_items, nested)) if isinstance(nested, list) else 0


@given(st.sampled_from(list(DATATYPES)), SHAPES, st.integers(0, 1 << 32))
def test_items_of_every_datatype_come_back_as_they_were(datatype: str, shape: tuple[int, ...], seed: int) -> None:
    numbers = np.random.default_rng(seed).integers(0, 2, shape).astype(DATATYPES[datatype])
    made = read(datatype, tuple(-1 if each else 0 for each in shape), numbers.tolist())
    assert made.datatype == datatype
    if numbers.size:
        assert made.shape == shape
    assert np.array_equal(array(made).ravel(), numbers.ravel())
    assert to_json([made]) == {"x": nest(made.shape, numbers.ravel().tolist())}


@pytest.mark.parametrize(
    ("datatype", "value", "says"),
    [
        ("FP32", [[1, 2], 3], "expected FP32[-1,2], got lists and other items beside each other in dimension 1"),
        ("FP32", [[1, 2], [3]], "got lists of 1 and of 2 items in dimension 1"),
        ("FP32", [[1, None]], "expected numbers for FP32[-1,2], got null at [0][1]"),
        ("FP32", [["1", 2]], "got a text at [0][0]"),
        ("FP32", [[{}, 2]], "got an object at [0][0]"),
        ("INT8", [[1, 128]], "expected items of INT8"),
        ("UINT64", [[-1, 0]], "expected items of UINT64"),
        ("INT64", [[1, False]], "expected whole numbers for INT64[-1,2], got false at [0][1]"),
        ("BOOL", [[True, 1]], "expected true or false for BOOL[-1,2], got 1 at [0][1]"),
        ("BYTES", [["a", 1.5]], "expected texts for BYTES[-1,2], got 1.5 at [0][1]"),
    ],
)
def test_what_is_no_tensor_of_its_datatype_is_refused_by_its_place(datatype: str, value: Any, says: str) -> None:
    with pytest.raises(InvalidTensor) as caught:
        read(datatype, (-1, 2), value)
    assert says in caught.value.message
    assert caught.value.metadata["tensor"] == "x"


def test_whole_floats_are_integers_and_unknown_dimensions_are_those_of_the_lists() -> None:
    assert array(read("INT64", (-1,), [2.0, 3])).tolist() == [2, 3]
    assert read("FP32", None, [[[1]]]).shape == (1, 1, 1)
    assert read("FP32", (-1, 3, -1), []).shape == (0, 3, 0)


def test_an_answer_beyond_the_bounds_of_a_value_is_refused_before_it_is_made() -> None:
    large = Tensor(name="large", datatype="INT8", shape=(1 << 20,), data=b"")
    with pytest.raises(InferenceExhausted, match="at most 10000: the largest, 'large', is INT8"):
        to_json([large])
    long = Tensor(name="long", datatype=BYTES, shape=(2,), data=pack_items([b"a" * (600 << 10)] * 2))
    with pytest.raises(InferenceExhausted, match="must be at most 1048576 bytes as JSON"):
        make_outputs([long])
    other = Tensor(name="other", datatype=BYTES, shape=(1,), data=pack_items([b"\xff"]))
    with pytest.raises(TensorNotServable, match="'other' of the type BYTES that are no UTF-8"):
        to_json([other])


def test_a_list_beside_no_list_is_not_rectangular() -> None:
    for value in ([1, [2]], [[1], [[2]]], [[1], [2, 3]]):
        with pytest.raises(NotRectangular):
            flatten(value)
