"""The one function that asks other servers: resolve once, check every address, connect to the checked one.

A name that is resolved again for the connection could lead elsewhere by then (DNS rebinding), so the connection is made to
the address, with the name in `Host`, in SNI and in the check of the certificate. Each redirect is a URL like the first one.
Proxies of the environment are not used: they would resolve names themselves.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from blobhub_server.http.outbound.allowance import Allowance
from blobhub_server.http.outbound.body import ACCEPTED, decoded
from blobhub_server.http.outbound.message import (
    SAFE_METHODS,
    Headers,
    Incoming,
    OutboundTimeout,
    Outside,
    RefusedTarget,
    Request,
    TooManyRedirects,
    Unreachable,
)
from blobhub_server.http.outbound.target import RESOLVING_AT_ONCE, Resolver, Target, Url, find_target, resolve
from blobhub_server.turnstile import Turnstile

if TYPE_CHECKING:
    import httpx

AT_ONCE, AT_ONCE_OF_ONE = 512, 128
"""How many requests are under way at once, each with a connection of its own; and how many of one organization."""
CONNECT_SECONDS = 10.0
"""How long one address may take to accept a connection before the next one is tried."""
_ELSEWHERE = frozenset({"accept", "accept-language", "content-type", "idempotency-key", "user-agent"})
"""The headers that go on where a redirect leads to another origin. Any other may hold a secret."""
_MOVED, _SEE_OTHER, _KEPT = (301, 302), 303, (307, 308)


class Outbound(Outside):
    """Implements `Outside`. `resolver` finds addresses of names and `tls` verifies certificates, else the machine does."""

    def __init__(self, allowance: Allowance, *, resolver: Resolver | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._allowance = allowance
        self._resolver = resolver
        self._tls = tls
        self._clear = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # For http, where any does: httpx would read files for one.
        self._turns = Turnstile(AT_ONCE)
        self._turns_of = WeakValueDictionary[str, Turnstile]()
        self._resolving = Turnstile(RESOLVING_AT_ONCE)

    @asynccontextmanager
    async def ask(self, request: Request) -> AsyncIterator[Incoming]:
        # Whoever asks what never answers holds up nobody but their own.
        own = self._turns_of.setdefault(request.party[0], Turnstile(AT_ONCE_OF_ONE))
        async with own.turn(request.party), self._turns.turn(request.party):
            try:
                async with asyncio.timeout(request.timeout_seconds), AsyncExitStack() as stack:
                    yield await self._follow(request, stack)
            except TimeoutError:
                raise OutboundTimeout(f"no whole answer within {request.timeout_seconds:g} s") from None

    async def _follow(self, request: Request, stack: AsyncExitStack) -> Incoming:
        """The answer at the end of the redirects."""
        url = Url.parse(request.url)
        for _ in range(request.max_redirects + 1):
            answer, close = await self._send(url, request)
            stack.push_async_callback(close.aclose)
            location = dict(answer.headers).get("location", "")
            if not request.max_redirects or not location or answer.status not in (*_MOVED, _SEE_OTHER, *_KEPT):
                return answer
            await close.aclose()
            following = url.join(location)
            request, url = _redirected(request, answer.status, url, following), following
        raise TooManyRedirects(f"it redirects more than {request.max_redirects} times")

    async def _send(self, url: Url, request: Request) -> tuple[Incoming, AsyncExitStack]:
        """The answer of the first address that can be connected to, and what closes its connection."""
        import httpx  # noqa: PLC0415  slow to import, and not needed by every server

        resolver = self._resolver or partial(resolve, self._resolving, request.party)
        target = await find_target(url, self._allowance, resolver)
        if request.secret_headers:
            _require_for_secrets(url, request, target)
        if self._tls is None and url.scheme == "https":
            # The machine's certificates, so that a private authority is trusted. To read them takes some 30 ms.
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        for address in target.addresses:
            async with AsyncExitStack() as stack:
                transport = await stack.enter_async_context(self._transport())
                try:
                    response = await transport.handle_async_request(_encode(url, address, request))
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    continue
                except httpx.TransportError as error:
                    raise _unreachable(url, error) from None
                stack.push_async_callback(response.aclose)
                return _Answer(url, response, request), stack.pop_all()
        raise Unreachable(f"{url.host} accepts no connection on port {url.port}, or presents no certificate for its name")

    def _transport(self) -> httpx.AsyncHTTPTransport:
        import httpx  # noqa: PLC0415

        return httpx.AsyncHTTPTransport(
            verify=self._tls or self._clear, trust_env=False, limits=httpx.Limits(max_connections=1)
        )


class _Answer(Incoming):
    """Implements `Incoming`."""

    def __init__(self, url: Url, response: httpx.Response, request: Request) -> None:
        self._url = url
        self._response = response
        self._max_bytes = request.max_bytes
        self.status = response.status_code
        self.headers: Headers = [
            (name.decode("ascii", "replace").lower(), value.decode("latin-1")) for name, value in response.headers.raw
        ]

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        import httpx  # noqa: PLC0415

        encoding = dict(self.headers).get("content-encoding", "")
        try:
            async for chunk in decoded(self._response.aiter_raw(), encoding, self._max_bytes):
                yield chunk
        except httpx.TransportError as error:
            raise _unreachable(self._url, error) from None

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])


def _encode(url: Url, address: str, request: Request) -> httpx.Request:
    """The request to an address on behalf of the URL's host."""
    import httpx  # noqa: PLC0415

    given = {name.lower() for name, _ in (*request.headers, *request.secret_headers)}
    own = {"accept": "*/*", "accept-encoding": ACCEPTED if request.compressed else "identity", "user-agent": "blobhub"}
    headers = [("host", url.authority), *((name, value) for name, value in own.items() if name not in given)]
    host = f"[{address}]" if ":" in address else address
    return httpx.Request(
        request.method,
        f"{url.scheme}://{host}:{url.port}{url.path}",
        headers=[
            (name.encode(), value.encode("latin-1")) for name, value in (*headers, *request.headers, *request.secret_headers)
        ],
        content=request.body,
        extensions={"sni_hostname": url.host, "timeout": {"connect": CONNECT_SECONDS}},
    )


def _redirected(request: Request, status: int, url: Url, following: Url) -> Request:
    """The request that a redirect asks for. Raises RefusedTarget where it would lay open what was encrypted."""
    if (url.scheme, following.scheme) == ("https", "http"):
        raise RefusedTarget("it redirects from https to http")
    method, body, headers = request.method, request.body, request.headers
    if (status == _SEE_OTHER and method not in SAFE_METHODS) or (status in _MOVED and method == "POST"):
        method, body = "GET", None
        headers = [(name, value) for name, value in headers if name.lower() != "content-type"]
    if url.origin == following.origin:
        return replace(request, method=method, body=body, headers=headers)
    headers = [(name, value) for name, value in headers if name.lower() in _ELSEWHERE]
    return replace(request, method=method, body=body, headers=headers, secret_headers=())


def _require_for_secrets(url: Url, request: Request, target: Target) -> None:
    """Raise RefusedTarget unless the secret may go there."""
    if request.secret_hosts and not {url.host, f"{url.host}:{url.port}"} & {*request.secret_hosts}:
        raise RefusedTarget(f"the credential is not for {url.host}; its `hosts` say where it may go")
    if url.scheme == "http" and not target.allowed:
        raise RefusedTarget("a credential goes to public addresses by https alone")


def _unreachable(url: Url, error: httpx.TransportError) -> Unreachable:
    return Unreachable(f"{url.host} broke off, or its answer is no HTTP: {type(error).__name__}")
