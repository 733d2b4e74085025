"""What is fetched from URLs that the operator configured.

Requests use TLS or stay on this machine. The host may be on a private network: the operator named it. Redirects are not
followed.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from blobhub_server.http.outbound import address
from blobhub_server.http.outbound.allowance import EVERYTHING
from blobhub_server.http.outbound.message import OutboundError, Request
from blobhub_server.http.outbound.outbound import Outbound

_OK = 200


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
    require_allowed(url)
    request = Request(
        method="GET",
        url=url,
        headers=[("accept", "application/json")],
        timeout_seconds=timeout_seconds,
        max_bytes=max_bytes,
        compressed=False,
    )
    # One for each, so that certificates which are installed meanwhile are trusted.
    async with Outbound(EVERYTHING).ask(request) as answer:
        if answer.status != _OK:
            raise OutboundError(f"the answer is {answer.status}")
        return await answer.read()


def _is_loopback(host: str) -> bool:
    """Only for addresses: a name may resolve to any address."""
    found = address.parse(host)
    return found is not None and found.is_loopback
