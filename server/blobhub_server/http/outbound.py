"""HTTP requests that this server makes. No other module makes any.

The URLs are those that the operator configured. Requests use TLS or stay on this machine. Redirects are not followed, and
size and time of an answer are bounded.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx


class OutboundError(Exception):
    """Nothing was fetched. The message says why, and repeats nothing of the URL."""


def require_allowed(url: str) -> None:
    """Raise OutboundError unless the URL is https, or http to a loopback address."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise OutboundError("not a URL") from None
    if not host:
        raise OutboundError("not a URL")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise OutboundError("must be https://, or http:// to a loopback address such as 127.0.0.1")


async def fetch(url: str, *, max_bytes: int, timeout_seconds: float) -> bytes:
    """The body at a URL that the operator configured.

    Raises OutboundError, also for a redirect, and for a body that is too long or takes too long.
    """
    import httpx  # noqa: PLC0415  slow to import, and not needed by every server

    require_allowed(url)
    # The machine's certificates, so that a private certificate authority is trusted; no proxy from the environment.
    client = httpx.AsyncClient(verify=ssl.create_default_context(), trust_env=False, timeout=timeout_seconds)
    try:
        async with (
            asyncio.timeout(timeout_seconds),
            client,
            client.stream("GET", url, headers={"accept": "application/json", "accept-encoding": "identity"}) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise OutboundError(f"the answer is {response.status_code}")
            return await _read_bounded(response, max_bytes)
    except TimeoutError:
        raise OutboundError(f"no whole answer within {timeout_seconds:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OutboundError(f"no answer: {type(error).__name__}") from None


async def _read_bounded(response: httpx.Response, max_bytes: int) -> bytes:
    """Read the raw bytes, not the decompressed ones, so that `max_bytes` bounds them."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise OutboundError(f"the answer is longer than {max_bytes} bytes")
    return bytes(body)


def _is_loopback(host: str) -> bool:
    """Only for addresses: a name may resolve to any address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
