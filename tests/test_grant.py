"""Signatures of grants, and which bytes a request asks for."""

from __future__ import annotations

import httpx
import pytest
from blobhub_server.clock import utc_now
from blobhub_server.http.ranges import Part, choose
from blobhub_server.objects.grant import BadSignature, Grant, Signer
from hypothesis import given
from hypothesis import strategies as st

KEYS = {"one": b"1" * 32, "two": b"2" * 32}


@given(name=st.uuids().map(str), part=st.integers(0, 10_000), size=st.integers(0, 10**12 - 1), actor=st.text(max_size=20))
def test_a_signature_is_read_back_as_it_was_given_and_for_nothing_else(name: str, part: int, size: int, actor: str) -> None:
    now = utc_now()
    grant = Grant.to_put(name, part, size, actor_id=actor, now=now)
    signer = Signer(KEYS, "two")
    query = dict(httpx.URL(f"http://x/?{signer.sign(grant).url.partition('?')[2]}").params)
    found = signer.read("PUT", name, part, query, now)
    assert (found.size, found.actor_id, found.part) == (size, actor, part)
    assert Signer(KEYS, "one").read("PUT", name, part, query, now) == found
    for wrong in (("PUT", name + "x", part), ("PUT", name, part + 1), ("GET", name, part)):
        with pytest.raises(BadSignature):
            signer.read(*wrong, query, now)
    for key, value in query.items():
        with pytest.raises(BadSignature):
            signer.read("PUT", name, part, query | {key: value + "0"}, now)
    with pytest.raises(BadSignature):
        Signer({"two": b"3" * 32}, "two").read("PUT", name, part, query, now)


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("bytes=0-0", Part(status=206, offset=0, length=1)),
        ("bytes=2-", Part(status=206, offset=2, length=8)),
        ("bytes=-3", Part(status=206, offset=7, length=3)),
        ("bytes=-30", Part(status=206, offset=0, length=10)),
        ("BYTES=5-99", Part(status=206, offset=5, length=5)),
        ("bytes=9-9", Part(status=206, offset=9, length=1)),
        ("bytes=10-", Part(status=416)),
        ("bytes=-0", Part(status=416)),
        ("bytes=3-2", Part(status=200, length=10)),
        ("bytes=0-1,3-4", Part(status=200, length=10)),
        ("lines=0-1", Part(status=200, length=10)),
        ("bytes=a-b", Part(status=200, length=10)),
        ("bytes=-", Part(status=200, length=10)),
        ("bytes=٣-", Part(status=200, length=10)),
        ("bytes=" + "9" * 40 + "-", Part(status=200, length=10)),
    ],
)
def test_ranges_are_read_as_rfc_9110_has_them(value: str, part: Part) -> None:
    assert choose({"range": value}, '"etag"', 10) == part
    assert choose({"range": value, "if-range": '"etag"'}, '"etag"', 10) == part
    assert choose({"range": value, "if-range": '"other"'}, '"etag"', 10) == Part(status=200, length=10)
    assert choose({"range": value, "if-match": '"other"'}, '"etag"', 10) == Part(status=412)
    assert choose({"range": value, "if-match": '"x", "etag"'}, '"etag"', 10) == part
    assert choose({"range": value, "if-none-match": 'W/"etag"'}, '"etag"', 10) == Part(status=304)
    assert choose({"range": value, "if-none-match": "*"}, '"etag"', 10) == Part(status=304)


def test_an_empty_object_has_no_range() -> None:
    assert choose({}, '"e"', 0) == Part(status=200, length=0)
    for value in ("bytes=0-", "bytes=-1"):
        assert choose({"range": value}, '"e"', 0) == Part(status=416)
