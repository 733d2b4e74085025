"""Asking other servers with a credential: how it goes into a request, and is kept out of what comes back."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from blobhub_server.blobtypes.reference import is_alias
from blobhub_server.errors import BlobHubError
from blobhub_server.http.outbound.message import Headers, Incoming, OutboundError, Request
from blobhub_server.workflow.components.contract import ComponentContext, ComponentError, PortSpec

MAX_SECONDS, DEFAULT_SECONDS = 600.0, 30.0
MASK = "[credential]"
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
TIMEOUT = PortSpec(
    category="data_input",
    route="timeout",
    description=f"How many seconds the whole answer may take: {DEFAULT_SECONDS:g} unless set, {MAX_SECONDS:g} at most.",
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
    seconds = settings.get("timeout", DEFAULT_SECONDS)
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
