"""Authentication: from a call's bearer, an API key or a token, to its caller."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from blobhub_server.blobtypes.access import ANONYMOUS, Caller, Role
from blobhub_server.clock import Clock
from blobhub_server.db.engine import Database
from blobhub_server.errors import Unauthenticated
from blobhub_server.platform.rules import api_key as rules
from blobhub_server.platform.rules.api_key import ApiKey
from blobhub_server.platform.rules.user import User
from blobhub_server.platform.store import api_key as store
from blobhub_server.platform.store import user as user_store

CACHE_SECONDS = 0.5
"""How long a caller is cached by its key or token. Revoked ones have to be refused within a second."""

_MAX_CACHED = 4096


class Tokens(Protocol):
    """The tokens of an OpenID Connect issuer."""

    def claims(self, bearer: str) -> bool:
        """Whether a bearer has the form of a token."""

    async def user(self, token: str) -> tuple[User, datetime]:
        """The user that a token speaks for, and when the token expires. Raises Unauthenticated, IssuerUnavailable."""


class Usage(Protocol):
    """Records the use of keys."""

    def record_use(self, key_id: str) -> None:
        """Record that a call came with this key."""


class Authentication:
    """Finds the caller of a key or token, and caches it for half a second."""

    def __init__(self, db: Database, clock: Clock, usage: Usage, tokens: Tokens | None) -> None:
        self._db = db
        self._clock = clock
        self._usage = usage
        self._tokens = tokens
        self._cache: OrderedDict[str, tuple[float, Caller]] = OrderedDict()

    async def caller(self, bearer: str) -> Caller:
        """The caller of a key or token; anonymous for an empty text. Raises Unauthenticated, IssuerUnavailable."""
        if not bearer:
            return ANONYMOUS
        now = time.monotonic()
        cached = self._cache.get(bearer)
        if cached is not None and cached[0] > now:
            return cached[1]
        caller = await self.authenticate(bearer)
        self._cache[bearer] = (now + CACHE_SECONDS, caller)
        self._cache.move_to_end(bearer)
        if len(self._cache) > _MAX_CACHED:
            self._cache.popitem(last=False)
        return caller

    def cached_caller(self, bearer: str) -> Caller | None:
        """The caller of a key or token, if `caller` knows it without looking."""
        cached = self._cache.get(bearer)
        return cached[1] if cached is not None and cached[0] > time.monotonic() else None

    def require_form(self, bearer: str) -> None:
        """Raise Unauthenticated for a text that is neither a key nor a token. Does not ask the database."""
        known = not bearer or bearer in self._cache or (self._tokens is not None and self._tokens.claims(bearer))
        if not known and rules.parse(bearer) is None:
            raise Unauthenticated(malformed=True)

    async def authenticate(self, bearer: str) -> Caller:
        """The same, without the cache."""
        if not bearer:
            return ANONYMOUS
        if self._tokens is not None and self._tokens.claims(bearer):
            user, expire_time = await self._tokens.user(bearer)
            return _require_enabled(user_caller(user, Role.ADMIN, None, expire_time), user)
        return await self._key_caller(bearer)

    async def _key_caller(self, key: str) -> Caller:
        parsed = rules.parse(key)
        assert parsed is not None, "the form was checked before the call was read"
        public_id, secret_hash = parsed
        async with self._db.read() as tx:
            record = await store.get_by_public_id(tx, public_id)
            if record is None or not rules.matches(record, secret_hash):
                raise Unauthenticated
            user = None if record.user_id is None else await user_store.get(tx, record.user_id)
        caller = key_caller(record, user)
        if not record.valid(self._clock()):
            raise Unauthenticated(claimed=caller)
        self._usage.record_use(record.id)
        return _require_enabled(caller, user)


def read_bearer(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """The key or token in a call's metadata: `authorization: Bearer …` or `x-api-key`; empty for none.

    Raises Unauthenticated for another scheme, and for two that differ.
    """
    found = set()
    for name, value in metadata or ():
        if name == "authorization":
            scheme, _, key = str(value).partition(" ")
            found.add(key.strip() if scheme.lower() == "bearer" else "")
        elif name == "x-api-key":
            found.add(str(value))
    if "" in found or len(found) > 1:
        raise Unauthenticated(malformed=True)
    return found.pop() if found else ""


def _require_enabled(caller: Caller, user: User | None) -> Caller:
    if user is not None and user.disabled:
        raise Unauthenticated(claimed=caller)
    return caller


def key_caller(key: ApiKey, user: User | None) -> Caller:
    """The caller that a key stands for; `user` is the user it acts as, if any."""
    if user is not None:
        return user_caller(user, key.role, key.id, key.expire_time)
    return Caller(
        key_id=key.id,
        organization_id=key.organization_id,
        blob_id=key.blob_id,
        role=key.role,
        expire_time=key.expire_time,
        queues=frozenset(key.queues),
    )


def user_caller(user: User, role: Role, key_id: str | None, expire_time: datetime | None) -> Caller:
    """The caller that a user is, with roles up to `role`."""
    return Caller(
        key_id=key_id,
        user_id=user.id,
        role=role,
        administrator=user.administrator and role is Role.ADMIN,
        expire_time=expire_time,
        user_name=user.name,
    )
