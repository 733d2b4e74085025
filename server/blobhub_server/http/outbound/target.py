"""Where a URL leads: the addresses that a connection may be made to. Each is checked, and the name is resolved once."""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import urljoin, urlsplit

from blobhub_server.http.outbound import address as addresses
from blobhub_server.http.outbound.allowance import Allowance
from blobhub_server.http.outbound.message import InvalidUrl, RefusedTarget, Unreachable
from blobhub_server.scarcity import Threads
from blobhub_server.turnstile import Party, Turnstile

MAX_URL = 8192
"""How many characters a URL has at most."""
SETTING = "BLOBHUB_HTTP_ALLOW"
_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
# What parsers of URLs differ about: white space, control characters, backslashes, and all that is not ASCII.
_ODD = re.compile(r"[^\x21-\x5b\x5d-\x7e]")

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a name. Raises OSError."""

RESOLVING_AT_ONCE = 16
# Of its own, because a name server that is silent holds a thread for long, and others are needed by everybody.
_RESOLVING = Threads(max_workers=RESOLVING_AT_ONCE, thread_name_prefix="resolver")


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """A URL that can be asked. `path` is what follows the host, without the fragment. `host` is in lower case."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> Url:
        """Raises InvalidUrl, without the text: it may hold a secret."""
        if len(text) > MAX_URL or _ODD.search(text):
            raise InvalidUrl(f"a URL has up to {MAX_URL} printable ASCII characters; others are written with %")
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise InvalidUrl("it is no URL") from None
        if parts.scheme not in _PORTS:
            raise InvalidUrl("a URL begins with http:// or https://")
        if "@" in parts.netloc:
            raise InvalidUrl("a URL has no user and no password; use a credential")
        host = host.removesuffix(".")
        bracketed = parts.netloc.startswith("[")
        found = addresses.parse(host) if bracketed or ":" not in host else None
        if found is None and addresses.is_numeric(host):
            raise RefusedTarget("an address is written as 192.0.2.1 or [2001:db8::1], and in no other form")
        if bracketed != (found is not None and found.version == 6) or (found is None and not _NAME.fullmatch(host)):
            raise InvalidUrl("the host of the URL is neither a name nor an address")
        path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        return cls(scheme=parts.scheme, host=host, port=_PORTS[parts.scheme] if port is None else port, path=path)

    @property
    def origin(self) -> tuple[str, str, int]:
        """What may be told what another may not (RFC 6454)."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """The host, with the port if it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def join(self, location: str) -> Url:
        """Where a redirect leads. Raises InvalidUrl."""
        try:
            return Url.parse(urljoin(f"{self.scheme}://{self.authority}{self.path}", location.strip()))
        except ValueError:
            raise InvalidUrl("it redirects to what is no URL") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Addresses to connect to, in this order. `allowed` is true where the operator has named it."""

    addresses: tuple[str, ...]
    allowed: bool


async def resolve(turns: Turnstile, party: Party, host: str, port: int) -> Sequence[str]:
    """The addresses of a name, as this machine finds them, in a turn. Raises OSError."""
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    return [str(found[4][0]) for found in await turns.run(party, look_up, _RESOLVING)]


async def find_target(url: Url, allowance: Allowance, resolver: Resolver) -> Target:
    """Resolve the URL's host, once. Raises RefusedTarget unless every address is public or allowed; Unreachable."""
    if not url.port > 0:
        raise RefusedTarget("there is no port 0")
    if addresses.parse(url.host) is None:
        try:
            texts = [*dict.fromkeys(await resolver(url.host, url.port))]
        except (OSError, UnicodeError):
            raise Unreachable(f"the name {url.host} has no address") from None
    else:
        texts = [url.host]
    found = [addresses.parse(text) for text in texts]
    if not found:
        raise Unreachable(f"the name {url.host} has no address")
    named = allowance.names(url.host, url.port)
    for each in found:
        if each is None or not (named or addresses.is_public(each) or allowance.holds(each, url.port)):
            raise RefusedTarget(f"{url.host} is not at a public address, and {SETTING} does not name it")
    checked = [addresses.plain(each) for each in found if each is not None]
    allowed = named or all(allowance.holds(each, url.port) for each in checked)
    return Target(addresses=tuple(map(str, checked)), allowed=allowed)
