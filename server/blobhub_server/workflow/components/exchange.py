"""Asking other servers with a credential: how it goes into a request, and is kept out of what comes back."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from blobhub_server.blobtypes.reference import is_alias
from blobhub_server.errors import BlobHubError
from blobhub_server.http.outbound.message import Headers, Incoming, OutboundError, Request
from blobhub_server.workflow.components.contract import ComponentContext, ComponentError, PortSpec

MAX_SECONDS = 600.0
MASK = "[credential]"
MAX_TOLD_BYTES = 4 << 10
"""How much of the body of an answer that fails is kept."""
_PASSING = frozenset({408, 425, 429})
"""Refusals that may pass, beside all of 500 and more."""
_CHARSETS = frozenset({"utf-8", "us-ascii", "iso-8859-1", "windows-1252"})
_MIN_MASKED = 6
"""How many characters a secret has at least that is looked for in answers: shorter ones are everywhere."""
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_SENDABLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")

CREDENTIAL = PortSpec(
    category="data_input",
    route="credential",
    description="The alias of a credential: the blob's, else the organization's. It is looked up whenever this is run.",
    value_type="text",
)
CREDENTIAL_AS = PortSpec(
    category="data_input",
    route="credential_as",
    description="How the credential goes out: `bearer` unless set; `basic`; or the name of a header, such as `X-Api-Key`.",
    value_type="text",
)


def timeout_port(default: float) -> PortSpec:
    """The data input `timeout`, of a component that waits so long unless it is set."""
    return PortSpec(
        category="data_input",
        route="timeout",
        description=f"How many seconds the whole answer may take: {default:g} unless set, {MAX_SECONDS:g} at most.",
        value_type="float",
    )


@dataclass(frozen=True, slots=True)
class Secret:
    """A credential as a request carries it. `hosts` are where it may go; any if there are none. Never shown."""

    headers: Headers = ()
    hosts: Sequence[str] = ()
    forms: Sequence[str] = ()
    """What an answer must not repeat, longest first."""

    def __repr__(self) -> str:
        return "Secret()"

    def mask(self, text: str) -> str:
        """The text without the secret, which a server may send back."""
        for form in self.forms:
            text = text.replace(form, MASK)
        return text

    def mask_bytes(self, data: bytes) -> bytes:
        """The same, of bytes."""
        for form in self.forms:
            data = data.replace(form.encode(), MASK.encode())
        return data


class Veil:
    """Masks a secret in text that comes in pieces, and may be cut in the middle of it."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret
        self._kept = ""

    def feed(self, text: str) -> str:
        """What can be shown by now: all but what may be the beginning of the secret."""
        text = self._secret.mask(self._kept + text)
        kept = max((_overlap(text, form) for form in self._secret.forms), default=0)
        self._kept = text[len(text) - kept :]
        return text[: len(text) - kept]

    def end(self) -> str:
        """The rest."""
        return self._secret.mask(self._kept)


def _overlap(text: str, form: str) -> int:
    """How many characters at the end of a text begin the form."""
    most = min(len(text), len(form) - 1)
    return next((count for count in range(most, 0, -1) if text.endswith(form[:count])), 0)


NONE = Secret()


async def find_secret(settings: Mapping[str, Any], context: ComponentContext) -> Secret:
    """The credential that plain data inputs name, as they say it goes out. Raises ComponentError."""
    if "credential" not in settings:
        return NONE
    alias, form = settings["credential"], settings.get("credential_as", "bearer")
    try:
        body = await context.services.secrets.use(
            organization_id=context.organization_id, blob_id=context.blob_id, actor_id=context.actor_id, alias=alias
        )
    except BlobHubError as error:
        may_pass = error.retry_after_seconds is not None
        raise ComponentError(error.message, reason=error.reason, retryable=may_pass) from None
    try:
        return _secret(body, form)
    except ValueError as error:
        message = f"the credential {alias!r} {error}"
        raise ComponentError(message, reason="INVALID_CREDENTIAL", retryable=False) from None


def _secret(body: Mapping[str, Any], form: str) -> Secret:
    """Raises ValueError, which repeats nothing of the body."""
    hosts = body.get("hosts", [])
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise ValueError("must have texts `host` or `host:port` in its list `hosts`")
    hosts = [host.lower() for host in hosts]
    if form == "basic":
        user, password = body.get("username"), body.get("password")
        if not isinstance(user, str) or not isinstance(password, str) or ":" in user:
            raise ValueError("must have the texts `username`, without a colon, and `password`")
        both = base64.b64encode(f"{user}:{password}".encode()).decode()
        return Secret(headers=[("authorization", f"Basic {both}")], hosts=hosts, forms=_forms(password, both))
    token = body.get("token", body.get("api_key"))
    if not isinstance(token, str) or not _SENDABLE.fullmatch(token):
        raise ValueError("must have a text `token` or `api_key`, of printable ASCII characters")
    header = ("authorization", f"Bearer {token}") if form == "bearer" else (form, token)
    return Secret(headers=[header], hosts=hosts, forms=_forms(token))


def _forms(*secrets: str) -> Sequence[str]:
    """The ways in which an answer may repeat secrets."""
    ways = {
        way
        for secret in secrets
        if len(secret) >= _MIN_MASKED
        for way in (secret, json.dumps(secret)[1:-1], quote(secret, safe=""), base64.b64encode(secret.encode()).decode())
    }
    return sorted(ways, key=len, reverse=True)


def credential_problems(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with plain values of the inputs above, by data input."""
    alias, form = settings.get("credential", "a"), settings.get("credential_as", "bearer")
    if not (isinstance(alias, str) and is_alias(alias)):
        yield "credential", "must be the alias of a credential: 1–63 characters of `a-z`, `0-9`, `-` and `_`"
    if not (isinstance(form, str) and HEADER_NAME.fullmatch(form)):
        yield "credential_as", "must be `bearer`, `basic` or the name of a header"
    elif form.lower() in ("host", "content-length", "transfer-encoding", "connection"):
        yield "credential_as", f"must not be the header `{form}`"
    seconds = settings.get("timeout", MAX_SECONDS)
    if isinstance(seconds, bool) or not (isinstance(seconds, int | float) and 0 < seconds <= MAX_SECONDS):
        yield "timeout", f"must be a number of seconds above 0, {MAX_SECONDS:g} at most"


@asynccontextmanager
async def asking(context: ComponentContext, request: Request) -> AsyncIterator[Incoming]:
    """The answer to a request. Raises ComponentError, also for what its body is read with in the block."""
    try:
        async with context.services.outside.ask(request) as answer:
            yield answer
    except OutboundError as error:
        raise ComponentError(str(error), reason=f"HTTP_{error.reason}", retryable=error.may_pass) from None


async def read_some(answer: Incoming) -> bytes:
    """The beginning of a body, as far as it comes: what the answer says is in its status."""
    body = bytearray()
    try:
        async with aclosing(answer.chunks()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > MAX_TOLD_BYTES:
                    break
    except OutboundError:
        pass
    return bytes(body[:MAX_TOLD_BYTES])


def refused(answer: Incoming, body: bytes, secret: Secret) -> ComponentError:
    """The error of a status that is not accepted."""
    told = text_of(answer.headers, secret.mask_bytes(body), errors="replace") or ""
    message = f"the answer has the status {answer.status}{f': {told[:500]}' if told.strip() else ''}"
    may_pass = answer.status >= 500 or answer.status in _PASSING
    details = {"status": answer.status, "headers": shown_headers(answer.headers, secret), "body": told}
    return ComponentError(
        message,
        reason="HTTP_STATUS",
        retryable=may_pass,
        details=details,
        retry_after=_retry_after(answer.headers) if may_pass else 0.0,
    )


def shown_headers(headers: Headers, secret: Secret) -> dict[str, str]:
    """Headers by name, without the secret; several of one name are joined with a comma."""
    shown = dict[str, str]()
    for name, value in headers:
        shown[name] = f"{shown[name]}, {secret.mask(value)}" if name in shown else secret.mask(value)
    return shown


def _retry_after(headers: Headers) -> float:
    """How many seconds the other side asks to wait (RFC 9110, 10.2.3); 0 where it asks for none.

    An instant is compared with the other side's own clock.
    """
    told = dict(headers)
    asked = told.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", asked):
        return float(asked)
    try:
        return max(0.0, (parsedate_to_datetime(asked) - parsedate_to_datetime(told["date"])).total_seconds())
    except (KeyError, TypeError, ValueError):
        return 0.0


def text_of(headers: Headers, data: bytes, errors: str = "strict") -> str | None:
    """The text that a body is in the charset that its type says, else in UTF-8; None where it is none."""
    found = re.search(r"charset=\"?([a-z0-9-]+)", content_type(headers))
    charset = found[1] if found and found[1] in _CHARSETS else "utf-8"
    try:
        return None if b"\0" in data and errors == "strict" else data.decode(charset, errors)
    except UnicodeDecodeError:
        return None


def content_type(headers: Headers) -> str:
    """The type of a body, in lower case; empty where none is told."""
    return dict(headers).get("content-type", "").lower()


def is_url(url: Any) -> bool:
    """Whether a value is a text that may be a URL."""
    return isinstance(url, str) and url.lower().startswith(("https://", "http://"))
