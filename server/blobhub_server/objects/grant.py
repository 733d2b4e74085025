"""Grants: what a presigned URL allows its holder, and the signature of those that this server's own HTTP port serves.

A grant names one method on one object or on one part of an upload, for a few minutes, on behalf of an actor: when the key of
the actor is revoked, so is the grant. Object stores in the cloud sign in their own way.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import urlencode

LIFETIME = timedelta(minutes=5)
"""How long a presigned URL works."""

_KEY_ID, _EXPIRES, _ACTOR, _SIZE, _SIGNATURE = "key", "expires", "actor", "size", "signature"


class BadSignature(Exception):
    """A request does not bear a signature of this server for just what it asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What is allowed: to GET an object by its digest, or to PUT a part of an upload, which has exactly `size` bytes.

    For an object, `part` and `size` are 0. `expire_time` is cut to whole seconds.
    """

    method: Literal["GET", "PUT"]
    name: str
    part: int = 0
    size: int = 0
    actor_id: str
    expire_time: datetime

    @classmethod
    def to_get(cls, digest: str, *, actor_id: str, now: datetime) -> Grant:
        """A grant to read an object."""
        return cls(method="GET", name=digest, actor_id=actor_id, expire_time=now + LIFETIME)

    @classmethod
    def to_put(cls, upload_id: str, part: int, size: int, *, actor_id: str, now: datetime) -> Grant:
        """A grant to send a part, or to send it again."""
        return cls(method="PUT", name=upload_id, part=part, size=size, actor_id=actor_id, expire_time=now + LIFETIME)

    @property
    def path(self) -> str:
        """The path of what it is for on the HTTP port."""
        return f"/v1/objects/{self.name}" if self.method == "GET" else f"/v1/uploads/{self.name}/parts/{self.part}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRequest:
    """A request to make as it stands: method, URL and headers. It works until `expire_time`."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    expire_time: datetime


class Signer:
    """Signs grants with HMAC-SHA256, and reads them back."""

    def __init__(self, keys: Mapping[str, bytes], current: str, base_url: str = "") -> None:
        """Signs with the current one of the keys, and accepts all, by their ids. `base_url` is where the HTTP port is."""
        self._keys = keys
        self._current = current
        self.base_url = base_url

    def sign(self, grant: Grant) -> SignedRequest:
        """The URL of a grant."""
        expires = int(grant.expire_time.timestamp())
        query = {_ACTOR: grant.actor_id, _EXPIRES: str(expires), _KEY_ID: self._current}
        if grant.method == "PUT":
            query[_SIZE] = str(grant.size)
        query[_SIGNATURE] = _mac(self._keys[self._current], grant, expires)
        return SignedRequest(
            method=grant.method,
            url=f"{self.base_url}{grant.path}?{urlencode(query)}",
            expire_time=datetime.fromtimestamp(expires, UTC),
        )

    def read(self, method: Literal["GET", "PUT"], name: str, part: int, query: Mapping[str, str], now: datetime) -> Grant:
        """The grant that a request bears. `query` has each parameter once. Raises BadSignature."""
        names = {_ACTOR, _EXPIRES, _KEY_ID, _SIGNATURE} | ({_SIZE} if method == "PUT" else set())
        if query.keys() != names:
            raise BadSignature
        expires, size = _number(query[_EXPIRES]), _number(query.get(_SIZE, "0"))
        key = self._keys.get(query[_KEY_ID])
        if key is None or now.timestamp() >= expires:
            raise BadSignature
        grant = Grant(
            method=method,
            name=name,
            part=part,
            size=size,
            actor_id=query[_ACTOR],
            expire_time=datetime.fromtimestamp(expires, UTC),
        )
        if not hmac.compare_digest(_mac(key, grant, expires).encode(), query[_SIGNATURE].encode()):
            raise BadSignature
        return grant


def _number(text: str) -> int:
    """A number in its one spelling, so that no other text has the same signature. Raises BadSignature."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 12 and text == str(int(text))):
        raise BadSignature
    return int(text)


def _mac(key: bytes, grant: Grant, expires: int) -> str:
    """Of all that is granted. No field has a line break, so no two grants have the same text."""
    fields = (grant.method, grant.name, str(grant.part), str(grant.size), str(expires), grant.actor_id)
    return hmac.new(key, "\n".join(fields).encode(), hashlib.sha256).hexdigest()
