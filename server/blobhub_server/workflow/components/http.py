"""Components that ask other servers over HTTP."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from blobhub_server.blobtypes import json_text
from blobhub_server.errors import InvalidValue
from blobhub_server.http.outbound.message import SAFE_METHODS, Headers, Incoming, Request
from blobhub_server.turnstile import off_loop
from blobhub_server.workflow.components.contract import (
    CONTROL_IN,
    ERROR,
    FAILURE,
    SUCCESS,
    ComponentContext,
    ComponentError,
    EffectComponent,
    Inputs,
    Outcome,
    PortSpec,
)
from blobhub_server.workflow.components.exchange import (
    CREDENTIAL,
    CREDENTIAL_AS,
    HEADER_NAME,
    Secret,
    asking,
    content_type,
    credential_problems,
    find_secret,
    is_url,
    read_some,
    refused,
    shown_headers,
    text_of,
    timeout_port,
)
from blobhub_server.workflow.values import fits, is_number, unwrap

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
MAX_BYTES = json_text.MAX_BYTES
DEFAULT_SECONDS = 30.0
MAX_REDIRECTS, DEFAULT_REDIRECTS = 10, 5
MAX_HEADERS, MAX_HEADER_BYTES = 64, 16 << 10

_OWN_HEADERS = frozenset(
    {"accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
"""Headers that are part of how the request is sent, and not of what it says."""
_TEXT = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
_STATUS = re.compile(r"[1-5]xx")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+| +")


class HttpRequest(EffectComponent):
    """Sends one HTTP request, and gives the answer: status, headers, and the body, decoded. Fails when the status is not
    one that `accept` names, when there is no answer, and when the address is not public and the operator does not allow it.
    What may pass is tried again if the policy says so: no connection, a timeout, and the statuses 408, 425, 429 and 500 and
    more. A method that changes something carries the header `Idempotency-Key`, the same in every attempt at the step.
    """

    type = "http.request"
    title = "HTTP request"
    ports = (
        CONTROL_IN,
        SUCCESS,
        FAILURE,
        PortSpec(
            category="data_input",
            route="method",
            description=f"`GET`, unless it is set: one of {', '.join(f'`{method}`' for method in METHODS)}.",
            value_type="text",
        ),
        PortSpec(
            category="data_input",
            route="url",
            description="Begins with `https://` or `http://`; no user and password in it.",
            value_type="text",
            required=True,
        ),
        PortSpec(
            category="data_input",
            route="headers",
            description="Object of texts, numbers or lists of those, by name.",
            value_type="json",
        ),
        PortSpec(
            category="data_input",
            route="query",
            description="Object of texts, numbers, booleans or lists of those, which are added to the URL.",
            value_type="json",
        ),
        PortSpec(
            category="data_input",
            route="body",
            description="A text goes out as it is; any other value as JSON. `headers` may say another type.",
        ),
        PortSpec(
            category="data_input",
            route="body_base64",
            description="Bytes in base64, instead of `body`.",
            value_type="text",
        ),
        CREDENTIAL,
        CREDENTIAL_AS,
        timeout_port(DEFAULT_SECONDS),
        PortSpec(
            category="data_input",
            route="maximum_bytes",
            description=f"How many bytes the body may have, also decompressed: {MAX_BYTES} at most, and unless set.",
            value_type="integer",
        ),
        PortSpec(
            category="data_input",
            route="redirects",
            description=(
                f"How many redirects are followed: {DEFAULT_REDIRECTS} unless it is set, {MAX_REDIRECTS} at most. With 0 a "
                "redirect is a status like others."
            ),
            value_type="integer",
        ),
        PortSpec(
            category="data_input",
            route="accept",
            description='List of the statuses that are no failure, such as `["2xx", 404]`; `["2xx"]` unless it is set.',
            value_type="json",
        ),
        PortSpec(category="data_output", route="status", description="The status, a number.", value_type="integer"),
        PortSpec(
            category="data_output",
            route="headers",
            description="Object of texts by name in lower case; several of one name are joined with a comma.",
        ),
        PortSpec(
            category="data_output",
            route="body",
            description="JSON as a value, other text as a text, and anything else in base64; a credential in it is masked.",
        ),
        PortSpec(category="data_output", route="body_type", description="`json`, `text` or `base64`.", value_type="text"),
        ERROR,
    )
    routes = ("success", "failure")

    async def run(self, inputs: Inputs, context: ComponentContext) -> Outcome:
        """Ask."""
        settings = {name: unwrap(value) for name, value in inputs.items()}
        for name, message in _problems(settings):
            raise ComponentError(f"{name!r} {message}", reason="INVALID_INPUT", retryable=False)
        secret = await find_secret(settings, context)
        request = _request(settings, secret, context)
        async with asking(context, request) as answer:
            if not _accepts(settings.get("accept", ["2xx"]), answer.status):
                raise refused(answer, await read_some(answer), secret)
            data = await answer.read()
            work = partial(_outputs, answer, data, secret)
            return Outcome(route="success", outputs=await off_loop(len(data), request.party, work), bounded=True)

    def problems(self, settings: Inputs) -> list[tuple[str, str]]:
        """What is set must be what can be sent."""
        return [*_problems({name: unwrap(value) for name, value in settings.items()})]


def _request(settings: Mapping[str, Any], secret: Secret, context: ComponentContext) -> Request:
    """The request that plain data inputs describe."""
    method = settings.get("method", "GET")
    body, type_ = _body(settings)
    headers = [*_pairs(settings.get("headers", {}))]
    names = {name.lower() for name, _ in headers}
    if type_ and "content-type" not in names:
        headers.append(("content-type", type_))
    if method not in SAFE_METHODS and "idempotency-key" not in names:
        headers.append(("idempotency-key", context.idempotency_key))
    return Request(
        method=method,
        url=_url(settings["url"], settings.get("query", {})),
        headers=headers,
        secret_headers=secret.headers,
        secret_hosts=secret.hosts,
        body=body,
        timeout_seconds=float(settings.get("timeout", DEFAULT_SECONDS)),
        max_bytes=settings.get("maximum_bytes", MAX_BYTES),
        max_redirects=settings.get("redirects", DEFAULT_REDIRECTS),
        party=(context.organization_id, context.actor_id),
    )


def _body(settings: Mapping[str, Any]) -> tuple[bytes | None, str]:
    """The bytes of the body, None for no body, and their type."""
    if "body_base64" in settings:
        return base64.b64decode(settings["body_base64"]), "application/octet-stream"
    if "body" not in settings:
        return None, ""
    body = settings["body"]
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    return json_text.write(body).encode(), "application/json"


def _url(url: str, query: Mapping[str, Any]) -> str:
    """The URL with a query added, without its fragment; what is not ASCII in it is written with %."""
    url = _NOT_ASCII.sub(lambda found: quote(found[0]), url.partition("#")[0])
    if not query:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode([*_pairs(query)])}"


def _pairs(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values, of a list each item."""
    for name, value in values.items():
        for each in value if isinstance(value, list) else [value]:
            yield name, each if isinstance(each, str) else json.dumps(each)


def _accepts(accept: Sequence[Any], status: int) -> bool:
    return status in accept or f"{status // 100}xx" in accept


def _outputs(answer: Incoming, data: bytes, secret: Secret) -> dict[str, Any]:
    """The data outputs. Raises ComponentError where a body is more than a value may be."""
    headers = shown_headers(answer.headers, secret)
    body, body_type = _decode(answer.headers, secret.mask_bytes(data), secret)
    try:
        for output, made in (("headers", headers), ("body", body)):
            json_text.encode(f"the output {output!r}", made)
    except InvalidValue as error:
        raise ComponentError(str(error), reason="HTTP_TOO_LARGE", retryable=False) from None
    return {"status": answer.status, "headers": headers, "body": body, "body_type": body_type}


def _decode(headers: Headers, data: bytes, secret: Secret) -> tuple[Any, str]:
    """A body as a value, and what was made of it."""
    text = text_of(headers, data)
    if text is None:
        return base64.b64encode(data).decode(), "base64"
    media_type = content_type(headers).partition(";")[0].strip()
    if media_type == "application/json" or media_type.endswith("+json"):
        try:
            value, compact = json_text.parse("body", text)
            # What was written with escapes is seen now.
            masked = secret.mask(compact)
            return value if masked == compact else json_text.load(masked), "json"
        except InvalidValue:
            pass  # It is not what it says, or deeper or with longer numbers than a value may have.
    return text, "text"


def _problems(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with plain values, by data input."""
    if settings.get("method", "GET") not in METHODS:
        yield "method", f"must be one of {', '.join(METHODS)}"
    if "url" in settings and not is_url(settings["url"]):
        yield "url", "must be a text that begins with https:// or http://"
    yield from credential_problems(settings)
    yield from _header_problems(settings.get("headers", {}))
    query = settings.get("query", {})
    if not isinstance(query, dict) or not all(map(_is_plain, query.values())):
        yield "query", "must be an object of texts, numbers, booleans, or lists of those"
    if "body_base64" in settings and not _is_base64(settings["body_base64"]):
        yield "body_base64", "must be bytes in base64"
    if {"body", "body_base64"} <= settings.keys():
        yield "body_base64", "must not be set beside `body`"
    for name, largest in (("maximum_bytes", MAX_BYTES), ("redirects", MAX_REDIRECTS)):
        if name in settings and not (fits(settings[name], "integer") and 0 <= settings[name] <= largest):
            yield name, f"must be an integer from 0 to {largest}"
    accept = settings.get("accept", [])
    if not isinstance(accept, list) or not all(map(_is_status, accept)):
        yield "accept", 'must be a list of statuses, such as ["2xx", 404]'


def _header_problems(headers: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(headers, dict) or not all(map(_is_plain, headers.values())):
        yield "headers", "must be an object of texts, numbers, or lists of those"
        return
    pairs = [*_pairs(headers)]
    if len(pairs) > MAX_HEADERS or sum(len(name) + len(value) for name, value in pairs) > MAX_HEADER_BYTES:
        yield "headers", f"must be at most {MAX_HEADERS}, with {MAX_HEADER_BYTES} characters in all"
    for name, value in pairs:
        if name.lower() in _OWN_HEADERS:
            yield "headers", f"must not have {name!r}, which is the server's to send"
        elif not HEADER_NAME.fullmatch(name) or not _TEXT.fullmatch(value):
            yield "headers", f"has {name[:60]!r}, whose name or value has characters that a header has not"


def _is_plain(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(isinstance(each, str | bool) or is_number(each) for each in values)


def _is_base64(text: Any) -> bool:
    try:
        return isinstance(text, str) and base64.b64decode(text, validate=True) is not None
    except ValueError:
        return False


def _is_status(status: Any) -> bool:
    if isinstance(status, str):
        return _STATUS.fullmatch(status) is not None
    return is_number(status) and 100 <= status < 600
