"""What is asked of other servers, and why nothing comes of it. It loads no network."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import ClassVar, Protocol

Headers = Sequence[tuple[str, str]]
"""Names and values, in order; a name may be there several times."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Those that change nothing (RFC 9110, 9.2.1)."""


class OutboundError(Exception):
    """Nothing came of a request. The message says why, and repeats nothing of the URL but its host.

    `may_pass` says whether the same request may get an answer later. `reason` is an upper-case word.
    """

    reason: ClassVar[str] = "FAILED"
    may_pass: ClassVar[bool] = False


class InvalidUrl(OutboundError):
    """The text is no URL that is asked."""

    reason = "INVALID_URL"


class RefusedTarget(OutboundError):
    """The URL, or one that it redirects to, leads to where no request may go."""

    reason = "REFUSED_TARGET"


class Unreachable(OutboundError):
    """There is no connection, or no answer comes through it."""

    reason = "UNREACHABLE"
    may_pass = True


class OutboundTimeout(OutboundError):
    """The whole answer has not come in time."""

    reason = "TIMEOUT"
    may_pass = True


class TooLarge(OutboundError):
    """The answer is longer than it may be, as it comes or decompressed."""

    reason = "TOO_LARGE"


class TooManyRedirects(OutboundError):
    """An answer redirects further than it may."""

    reason = "TOO_MANY_REDIRECTS"


class BadResponse(OutboundError):
    """What came cannot be read: it is compressed in a way nobody asked for, or cut off."""

    reason = "BAD_RESPONSE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request. `party` is whose turn it takes where requests wait.

    `secret_headers` go to the hosts `secret_hosts` alone, each `host` or `host:port`, or to any if there are none; never in
    clear to a public address; and never on to where a redirect leads to another origin. `timeout_seconds` is for all of it,
    redirects and body included. With `max_redirects` of 0 a redirect is an answer like others.
    """

    method: str
    url: str
    headers: Headers = ()
    secret_headers: Headers = ()
    secret_hosts: Sequence[str] = ()
    body: bytes | None = None
    timeout_seconds: float
    max_bytes: int
    max_redirects: int = 0
    compressed: bool = True
    party: tuple[str, str] = ("", "")


class Incoming(Protocol):
    """An answer whose head has come. Names of headers are in lower case."""

    status: int
    headers: Headers

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes, decompressed. Raises OutboundError."""

    async def read(self) -> bytes:
        """All of the body. Raises OutboundError."""


class Outside(Protocol):
    """The one way out."""

    def ask(self, request: Request) -> AbstractAsyncContextManager[Incoming]:
        """Send a request; the answer can be read until the block is left. Raises OutboundError."""
