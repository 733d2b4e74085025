"""The knob that sets how big the tests are."""

from __future__ import annotations

import argparse

import pytest
import scale
from hypothesis import given
from hypothesis import strategies as st
from scale import parse, sample, scaled

PARTS = st.floats(0, 1, exclude_min=True)


@given(full=st.integers(1, 10**6), least=st.integers(1, 10**6), part=PARTS)
def test_a_size_is_its_part_of_full_size_but_never_less_than_shows_the_point(full: int, least: int, part: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale, "_scale", part)
        size = scaled(full, least)
        assert size <= full
        assert size >= min(least, full)
        assert size == round(full * part) or size in (least, full)
        patch.setattr(scale, "_scale", 1.0)
        assert scaled(full, least) == full


def test_sizes_grow_with_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for part in (0.001, 0.1, 0.5, 1.0):
        monkeypatch.setattr(scale, "_scale", part)
        sizes.append(scaled(200, least=10))
    assert sizes == [10, 20, 100, 200]


@given(items=st.lists(st.integers(0, 999), unique=True, max_size=200), part=PARTS, seed=st.integers())
def test_a_sample_shows_whatever_any_item_shows(items: list[int], part: float, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale, "_scale", part)
        found = sample(items, lambda number: (number % 7, f"tens: {number // 10 % 10}"), seed)
        assert len(found) == len(set(found)) >= round(len(items) * part)
        assert set(found) <= set(items)
        for show in (lambda number: number % 7, lambda number: number // 10 % 10):
            assert {show(number) for number in found} == {show(number) for number in items}
        assert found == sample(items, lambda number: (number % 7, f"tens: {number // 10 % 10}"), seed)
        patch.setattr(scale, "_scale", 1.0)
        assert sorted(sample(items, lambda number: (number % 7,), seed)) == sorted(items)


@pytest.mark.parametrize("text", ["0", "-0.1", "1.01", "nan", "inf", "", "much"])
def test_what_is_no_scale_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="above 0, and 1 at most"):
        parse(text)


def test_the_scale_of_this_run_is_the_one_it_was_told(pytestconfig: pytest.Config) -> None:
    assert 0 < pytestconfig.getoption("scale") <= 1
    assert scaled(10**6, least=1) == round(10**6 * pytestconfig.getoption("scale"))
