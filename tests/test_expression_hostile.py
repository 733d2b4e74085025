"""Expressions that mean harm end soon, whatever they do: with a value, or with an error that says what is wrong.

No time is measured: what Python calls meanwhile is counted, and what it takes in memory.
"""

from __future__ import annotations

import sys
import tracemalloc
from typing import Any

import pytest
from blobhub_server.blobtypes import json_text
from blobhub_server.blobtypes.expressions import UNITS, ExpressionError, Fuel, OutOfFuel, TooLarge, evaluate, parse
from hostile_expressions import CORPUS, LOOPS, NAMES, SIZES
from hypothesis import given, settings
from hypothesis import strategies as st
from scale import scaled

MAX_CALLS = 12 * UNITS
"""Of functions, Python's own and others, in one evaluation: at half a microsecond or so each."""
MAX_BYTES = 8 << 20

REFUSED = {
    "[t.upper for x in n]", "[o[t] for x in n]", "[x + y for x, y in pairs]", "sum(rows)", "sum([n, n], n)",
    "sum([t, t], '')",
}  # fmt: skip
"""Those that find something else wrong before they run out of fuel."""


class Spent:
    """What an evaluation came to, and what it took."""

    def __init__(self, text: str, names: dict[str, Any]) -> None:
        self.calls = 0
        self.value: Any = None
        self.error: ExpressionError | None = None
        self.fuel = Fuel()
        sys.setprofile(self._count)
        try:
            self.value = evaluate(parse(text), names, self.fuel)
        except ExpressionError as error:
            self.error = error
        finally:
            sys.setprofile(None)

    def _count(self, frame: object, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            self.calls += 1


def peak_bytes(text: str, names: dict[str, Any]) -> int:
    """The most memory that an evaluation holds at once."""
    tracemalloc.start()
    try:
        Spent(text, names)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_corpus_is_large() -> None:
    assert len(set(CORPUS)) == len(CORPUS) >= 250


@pytest.mark.parametrize("text", CORPUS, ids=lambda text: ascii(text[:40]))
def test_a_hostile_expression_ends_within_its_work_and_its_memory(text: str) -> None:
    spent = Spent(text, NAMES)
    assert spent.calls < MAX_CALLS
    assert peak_bytes(text, NAMES) < MAX_BYTES
    if spent.error is None:
        json_text.encode("the result", spent.value)
    else:
        assert spent.error.message
        assert len(spent.error.message) < 1000
        assert spent.error.reason.startswith("EXPRESSION_")


@pytest.mark.parametrize("text", LOOPS, ids=lambda text: ascii(text[:40]))
def test_work_that_grows_faster_than_its_text_is_not_done(text: str) -> None:
    error = Spent(text, NAMES).error
    assert isinstance(error, OutOfFuel) or text in REFUSED
    assert error is not None


def test_values_beyond_the_bounds_are_not_made() -> None:
    made = [text for text in SIZES if Spent(text, NAMES).error is None]
    assert made == ["i << i << i << i << i", "['\\x00' * 100000]"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("o.items", None),
        ("n.sort", "list has no keys"),
        ("'%1000000000d' % 1", "takes numbers, not str and int"),
        ("[-1 in n for x in n]", "takes more work"),
        ("len([x * y for x in n for y in n])", "takes more work"),
    ],
)
def test_what_the_library_leaves_open_is_closed(text: str, words: str | None) -> None:
    spent = Spent(text, NAMES)
    if words is None:
        assert spent.value == NAMES["o"]["items"], "a dot reads a key"
    else:
        assert spent.error is not None
        assert words in spent.error.message


PIECES = st.sampled_from(
    ["n", "m", "t", "u", "o", "wide", "rows", "texts", "deep", "i", "big", "f", "x", "1", "'a'", "[", "]", "(", ")",
     "{", "}", ",", ":", " for x in ", " if ", " else ", " and ", " in ", " not ", "*", "**", "+", "-", "<<", "%", "==", "<",
     ".", "[0]", "[1:]", "sorted(", "str(", "sum(", "max(", "join(", "split(", "replace(", "range(", "default(", "f'{", "}'",
     "'", "\\", "\n", "\0", "é", "lambda:", ":=", "0x", "1e308", "_", "None"]
)  # fmt: skip


@settings(max_examples=scaled(20_000, least=1000))
@given(text=st.lists(PIECES, max_size=40).map("".join))
def test_any_text_ends_with_a_value_or_an_error(text: str) -> None:
    spent = Spent(text, NAMES)
    assert spent.calls < MAX_CALLS
    assert spent.error is not None or json_text.encode("the result", spent.value)


LISTS = st.sampled_from(["n", "m", "w", "rows", "texts", "pairs", "x", "keys(wide)", "range(300)", "[t, t]", "[n] * 50"])
MADE = st.sampled_from(
    ["x", "[x, x]", "str(x)", "x == n", "n < m", "x in m", "x in rows", "sorted(m)", "max(texts)", "[*m]", "m + m", "t[1:]",
     "t + 'a'", "upper(u)", "split(w)", "replace(t, 'a', 'b')", "f'{x}{t}'", "{'k': x}", "sum(n)", "'b' in t", "[x] * 1000",
     "wide | o", "any(m)", "default(x.a, 0)"]
)  # fmt: skip


@settings(max_examples=scaled(5_000, least=300))
@given(
    text=st.recursive(
        MADE,
        lambda inner: (
            st.builds(lambda made, of: f"[{made} for x in {of}]", inner, LISTS)
            | st.builds(lambda left, right: f"({left} == {right})", inner, inner)
            | st.builds(lambda made, of: f"sum([len(str({made})) for x in {of}])", inner, LISTS)
        ),
        max_leaves=4,
    )
)
def test_loops_over_large_values_stay_within_their_work_and_their_memory(text: str) -> None:
    spent = Spent(text, NAMES | {"x": 1})
    assert spent.calls < MAX_CALLS
    assert peak_bytes(text, NAMES | {"x": 1}) < MAX_BYTES
    assert spent.error is None or spent.error.reason != TooLarge.reason or spent.error.message
