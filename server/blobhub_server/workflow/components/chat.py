"""Components that ask language models of other servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

from blobhub_server.blobtypes import json_text
from blobhub_server.errors import InvalidValue
from blobhub_server.http.outbound.message import Incoming, Request
from blobhub_server.turnstile import off_loop
from blobhub_server.workflow.components.completion import BadAnswer, Completion, EventLines, Incomplete
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
    Secret,
    Veil,
    asking,
    content_type,
    credential_problems,
    find_secret,
    is_url,
    read_some,
    refused,
    timeout_port,
)
from blobhub_server.workflow.values import fits, is_number, unwrap

OPENAI = "https://api.openai.com/v1"
MAX_STREAM_BYTES = 32 << 20
"""How much a stream has: some 200 bytes go with every token."""
DEFAULT_SECONDS = 120.0
EMIT_SECONDS, EMIT_CHARACTERS = 0.05, 1000
"""Text that has come is shown after so long, or when there is so much: an event for each token would be too many."""
ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_OWN = frozenset({"messages", "model", "stream", "temperature", "tools"})
"""What `options` cannot set, because there is a data input for it."""


class OpenAiChat(EffectComponent):
    """Asks a language model by the protocol of OpenAI's chat completions, which many servers speak: `base_url` says whose.
    The answer comes as a stream; watchers see its text in `processor.output` as it grows. Fails when the other side refuses,
    when its answer is no chat completion, and when it breaks off. What may pass is tried again if the policy says so: then
    the text begins anew.
    """

    type = "genai.chat.openai"
    title = "Chat"
    ports = (
        CONTROL_IN,
        SUCCESS,
        FAILURE,
        PortSpec(
            category="data_input",
            route="base_url",
            description=f"Where the API is, as far as what `/chat/completions` follows: `{OPENAI}` unless set.",
            value_type="text",
        ),
        PortSpec(
            category="data_input", route="model", description="The model's name there.", value_type="text", required=True
        ),
        PortSpec(
            category="data_input",
            route="messages",
            description="List of messages, each a message value or an object with `role` and `content` as the API has it.",
        ),
        PortSpec(
            category="data_input",
            route="system",
            description="What the model is told before all messages.",
            value_type="text",
        ),
        PortSpec(
            category="data_input",
            route="prompt",
            description="What the user says after all messages.",
            value_type="text",
        ),
        PortSpec(category="data_input", route="temperature", description="From 0 to 2.", value_type="float"),
        PortSpec(
            category="data_input",
            route="tools",
            description="List of tools that the model may call, as the API has it.",
            value_type="json",
        ),
        PortSpec(
            category="data_input",
            route="options",
            description="Object of further fields of the request, such as `max_tokens`, `tool_choice` or `response_format`.",
            value_type="json",
        ),
        PortSpec(
            category="data_input",
            route="stream",
            description="False has the answer come in one.",
            value_type="boolean",
        ),
        CREDENTIAL,
        CREDENTIAL_AS,
        timeout_port(DEFAULT_SECONDS),
        PortSpec(category="data_output", route="text", description="The text of the answer.", value_type="text"),
        PortSpec(
            category="data_output",
            route="message",
            description="The answer as a message, which can be put into `messages` of the next request.",
        ),
        PortSpec(category="data_output", route="tool_calls", description="List of the tools that the model calls."),
        PortSpec(
            category="data_output",
            route="finish_reason",
            description="Why it ends: `stop`, `length`, `tool_calls` or another word.",
            value_type="text",
        ),
        PortSpec(category="data_output", route="usage", description="Object of counts of tokens; null where none came."),
        PortSpec(category="data_output", route="model", description="The model that has answered.", value_type="text"),
        ERROR,
    )
    routes = ("success", "failure")

    async def run(self, inputs: Inputs, context: ComponentContext) -> Outcome:
        """Ask."""
        settings = {name: unwrap(value) for name, value in inputs.items()}
        for name, message in _problems(settings):
            raise ComponentError(f"{name!r} {message}", reason="INVALID_INPUT", retryable=False)
        if not _messages(settings):
            raise ComponentError("there is neither a prompt nor a message", reason="INVALID_INPUT", retryable=False)
        secret = await find_secret(settings, context)
        request = _request(settings, secret, context)
        completion = Completion()
        async with asking(context, request) as answer:
            if answer.status // 100 != 2:
                raise refused(answer, await read_some(answer), secret)
            try:
                if content_type(answer.headers).startswith("text/event-stream"):
                    await _follow(answer, completion, secret, context)
                else:
                    data = (await answer.read()).decode("utf-8", "replace")
                    await off_loop(len(data), request.party, partial(completion.take_whole, data))
                    if text := secret.mask(completion.text):
                        context.emit_bounded(text)
            except BadAnswer as error:
                message = f"the answer is no chat completion: {error}"
                raise ComponentError(message, reason="CHAT_BAD_RESPONSE", retryable=False) from None
            except Incomplete as error:
                raise ComponentError(secret.mask(f"the answer broke off: {error}"), reason="CHAT_INCOMPLETE") from None
        if not completion.whole:
            raise ComponentError("the stream ended before the answer did", reason="CHAT_INCOMPLETE")
        outputs = await off_loop(completion.size, request.party, partial(_outputs, completion, secret))
        return Outcome(route="success", outputs=outputs, bounded=True)

    def problems(self, settings: Inputs) -> list[tuple[str, str]]:
        """What is set must be what can be asked."""
        return [*_problems({name: unwrap(value) for name, value in settings.items()})]


async def _follow(answer: Incoming, completion: Completion, secret: Secret, context: ComponentContext) -> None:
    """Take a stream to its end, and show its text as it comes. Raises BadAnswer and Incomplete."""
    events, veil, clock = EventLines(), Veil(secret), asyncio.get_running_loop().time
    waiting, shown = "", clock()
    async with aclosing(answer.chunks()) as chunks:
        async for chunk in chunks:
            for data in events.feed(chunk):
                waiting += veil.feed(completion.take_event(data))
            if waiting and (clock() - shown >= EMIT_SECONDS or len(waiting) >= EMIT_CHARACTERS):
                context.emit_bounded(waiting)
                waiting, shown = "", clock()
            if completion.ended:
                break
    if waiting := waiting + veil.end():
        context.emit_bounded(waiting)


def _request(settings: Mapping[str, Any], secret: Secret, context: ComponentContext) -> Request:
    stream = settings.get("stream", True)
    body = {"model": settings["model"], "messages": _messages(settings), "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    body |= {name: settings[name] for name in ("temperature", "tools") if name in settings}
    body |= settings.get("options", {})
    sent = {name: value for name, value in body.items() if value is not None}
    return Request(
        method="POST",
        url=f"{settings.get('base_url', OPENAI).rstrip('/')}/chat/completions",
        headers=[
            ("content-type", "application/json"),
            ("accept", "text/event-stream" if stream else "application/json"),
            ("idempotency-key", context.idempotency_key),
        ],
        secret_headers=secret.headers,
        secret_hosts=secret.hosts,
        body=json_text.write(sent).encode(),
        timeout_seconds=float(settings.get("timeout", DEFAULT_SECONDS)),
        max_bytes=MAX_STREAM_BYTES if stream else json_text.MAX_BYTES,
        compressed=not stream,
        party=(context.organization_id, context.actor_id),
    )


def _messages(settings: Mapping[str, Any]) -> list[Any]:
    given = settings.get("messages", [])
    if isinstance(given, dict):  # A value object of the type `messages`.
        given = given["messages"]
    first = [{"role": "system", "content": settings["system"]}] if "system" in settings else []
    last = [{"role": "user", "content": settings["prompt"]}] if "prompt" in settings else []
    return [*first, *map(_message, given), *last]


def _message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message as the API has it."""
    if message.get("type") == "message":
        return {"role": message["message"]["role"], "content": unwrap(message)}
    return message


def _outputs(completion: Completion, secret: Secret) -> dict[str, Any]:
    """The data outputs. Raises ComponentError where they are more than values may be."""
    made = {
        "text": completion.text,
        "message": completion.message,
        "tool_calls": completion.tool_calls,
        "finish_reason": completion.finish_reason or "stop",
        "usage": completion.usage,
        "model": completion.model,
    }
    try:
        return {name: json_text.load(secret.mask(json_text.encode(name, value))) for name, value in made.items()}
    except InvalidValue as error:
        raise ComponentError(f"the answer: {error}", reason="HTTP_TOO_LARGE", retryable=False) from None


def _problems(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with plain values, by data input."""
    if "base_url" in settings and not is_url(settings["base_url"]):
        yield "base_url", "must be a text that begins with https:// or http://"
    for name in ("model", "system", "prompt"):
        if name in settings and not (isinstance(settings[name], str) and settings[name]):
            yield name, "must be a text that is not empty"
    yield from credential_problems(settings)
    temperature = settings.get("temperature", 1)
    if not (is_number(temperature) and 0 <= temperature <= 2):
        yield "temperature", "must be a number from 0 to 2"
    if "stream" in settings and not fits(settings["stream"], "boolean"):
        yield "stream", "must be true or false"
    messages = settings.get("messages", [])
    if isinstance(messages, dict):
        messages = messages.get("messages")
    if not isinstance(messages, list) or not all(map(_is_message, messages)):
        yield "messages", f"must be a list of messages, each with a `role` ({', '.join(sorted(ROLES))}) and `content`"
    tools = settings.get("tools", [])
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        yield "tools", "must be a list of objects"
    options = settings.get("options", {})
    if not isinstance(options, dict):
        yield "options", "must be an object"
    elif own := sorted(_OWN & options.keys()):
        yield "options", f"must not have {own[0]!r}: there is a data input for it"


def _is_message(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    if message.get("type") == "message":
        inner = message.get("message")
        return isinstance(inner, dict) and inner.get("role") in ROLES and isinstance(unwrap(message), str)
    return message.get("role") in ROLES and ("content" in message or "tool_calls" in message)
