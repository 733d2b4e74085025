"""Pages of lists: nothing twice, nothing missed, and tokens that are good for their own list alone."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest
from blobhub.v1 import blob_pb2, organization_pb2
from blobhub_server.errors import InvalidPageToken
from blobhub_server.rpc.paging import Page
from hypothesis import given
from hypothesis import strategies as st

keys = st.text("abcdefgh", min_size=1, max_size=4)


def page(key_set: set[str], token: str, size: int) -> tuple[list[str], str]:
    asked = Page.parse(organization_pb2.ListOrganizationsRequest(page_size=size, page_token=token), "acme")
    found = sorted(key for key in key_set if key > asked.after)[: asked.limit + 1]
    return asyncio.run(asked.fill(found, lambda key: key, lambda key: key, size_of=len))


@given(st.sets(keys), st.lists(st.sets(keys, max_size=3), max_size=5), st.integers(1, 5))
def test_pages_hold_everything_once_and_in_order_whatever_is_inserted(there, inserts, size) -> None:
    everything, seen, token = set(there), [], ""
    for turn in count():
        items, token = page(everything, token, size)
        assert len(items) <= size
        seen += items
        if not token:
            break
        everything |= inserts[turn] if turn < len(inserts) else set()
    assert seen == sorted(set(seen))
    assert there <= set(seen)


def test_a_page_is_fifty_long_unless_asked() -> None:
    assert Page.parse(organization_pb2.ListOrganizationsRequest()).limit == 50
    assert Page.parse(organization_pb2.ListOrganizationsRequest(page_size=1000)).limit == 1000


TOKEN = page({"a", "b"}, "", 1)[1]


@given(st.integers(0, len(TOKEN) - 1), st.characters(codec="utf-8"))
def test_a_token_with_a_changed_character_is_refused(place: int, character: str) -> None:
    changed = TOKEN[:place] + character + TOKEN[place + 1 :]
    if changed != TOKEN:
        with pytest.raises(InvalidPageToken):
            page({"a"}, changed, 1)


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_a_made_up_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidPageToken):
        page({"a"}, token, 1)


def test_a_token_is_good_for_its_own_list_and_filters_alone() -> None:
    assert Page.parse(organization_pb2.ListOrganizationsRequest(page_token=TOKEN), "acme").after == "a"
    for request, scope in (
        (organization_pb2.ListOrganizationsRequest(page_token=TOKEN), "other"),
        (blob_pb2.ListBlobsRequest(page_token=TOKEN), "acme"),
    ):
        with pytest.raises(InvalidPageToken):
            Page.parse(request, scope)
