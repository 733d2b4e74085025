"""Pages of lists (https://google.aip.dev/158).

A token holds the key that the next page begins after, so inserts neither shift nor repeat anything. It is opaque, and a
checksum binds it to the list and the filters it was made with. Every page is cut by bytes as well as by count, so that no
list outgrows a message.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from typing import Any, Protocol, TypeVar

from google.protobuf.descriptor import Descriptor

from blobhub_server.background import Turns
from blobhub_server.db.portion import MAX_PAGE_BYTES
from blobhub_server.errors import InvalidPageToken
from blobhub_server.turnstile import Party, off_loop

DEFAULT_PAGE_SIZE = 50
_CHECKSUM_BYTES = 8

Item = TypeVar("Item")
Answer = TypeVar("Answer")


NOBODY: Party = ("", "")


def _nothing(_: Any) -> int:
    """The weight of items that are all small."""
    return 0


class ListRequest(Protocol):
    """A request of a List method."""

    DESCRIPTOR: Descriptor
    page_size: int
    page_token: str


@dataclass(frozen=True, slots=True)
class Page:
    """Which page is asked for: at most `limit` items whose key is greater than `after`."""

    limit: int
    after: str
    _scope: bytes

    @classmethod
    def parse(cls, request: ListRequest, *filters: str, default_size: int = DEFAULT_PAGE_SIZE) -> Page:
        """The page a request asks for. `filters` are the resolved filters of the list. Raises InvalidPageToken."""
        scope = hashlib.sha256("\0".join((request.DESCRIPTOR.full_name, *filters)).encode()).digest()
        after = _decode_token(request.page_token, scope) if request.page_token else ""
        return cls(limit=request.page_size or default_size, after=after, _scope=scope)

    async def fill(
        self,
        found: Sequence[Item],
        key: Callable[[Item], str],
        make: Callable[[Item], Answer],
        *,
        size_of: Callable[[Any], int] = methodcaller("ByteSize"),
        more: str = "",
        weight_of: Callable[[Item], int] = _nothing,
        party: Party = NOBODY,
    ) -> tuple[list[Answer], str]:
        """The page, as what `make` makes of its items, and the token of the next one.

        `found` is what a read of up to `limit + 1` items after the page before has found.
        A page has at most `limit` items, and ends with the one that makes it `MAX_PAGE_BYTES` or more; `size_of` answers the
        bytes of one, by default they are messages. `more` is the key that the read ended with, where it ended because its
        records were large, and the list goes on. Messages are made in turns, because a thousand take some time; one whose
        item weighs much, by `weight_of` in bytes, is made beside the loop, in a turn of `party`.
        """
        made: list[Answer] = []
        size, turns = 0, Turns()
        for item in found[: self.limit]:
            if size >= MAX_PAGE_BYTES:
                break
            made.append(await off_loop(weight_of(item), party, partial(make, item)))
            size += size_of(made[-1])
            await turns.pause()
        last = key(found[len(made) - 1]) if len(made) < len(found) else more
        return made, _encode_token(last, self._scope) if last else ""


class OrderedRequest(Protocol):
    """A request of a List method of what has an alias."""

    alias_prefix: str
    order_by: str


def order_of(request: OrderedRequest) -> str:
    """The order a request asks for. Without one it is by creation, or, with a prefix, by alias, which has an index."""
    return request.order_by or ("alias" if request.alias_prefix else "create_time")


def _encode_token(key: str, scope: bytes) -> str:
    data = key.encode()
    checksum = hashlib.sha256(scope + data).digest()[:_CHECKSUM_BYTES]
    return base64.urlsafe_b64encode(checksum + data).decode().rstrip("=")


def _decode_token(token: str, scope: bytes) -> str:
    try:
        key = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))[_CHECKSUM_BYTES:].decode()
    except (binascii.Error, ValueError):
        raise InvalidPageToken from None
    if _encode_token(key, scope) != token or "\0" in key:
        raise InvalidPageToken
    return key
