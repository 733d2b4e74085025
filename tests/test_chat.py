"""`genai.chat.openai` against a server that speaks like OpenAI's: what is asked, what streams, what fails by which name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import acme
import pytest
from asking import answer, asked
from blobhub.v1 import execution_pb2
from calling import ask
from fetching import credential, fetches
from marked import secret
from served import Api, Served, connected, served
from web import Answer, Asked, Web, said, web

CHAT = "genai.chat.openai"
OUTPUTS = ("text", "message", "tool_calls", "finish_reason", "usage", "model")
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def event(delta: Any = None, finish: str | None = None, **fields: Any) -> bytes:
    """One event of a stream."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return f"data: {json.dumps({'model': 'm-1', 'choices': choices} | fields)}\n\n".encode()


def streamed(*pieces: bytes, end: bytes = b"data: [DONE]\n\n", hang: bool = False) -> Answer:
    return Answer(headers=[("content-type", "text/event-stream; charset=utf-8")], pieces=[*pieces, end], hang=hang)


def tokens(*texts: str) -> list[bytes]:
    return [event({"role": "assistant", "content": ""}), *(event({"content": text}) for text in texts), event({}, "stop")]


HELLO = streamed(*tokens("Hel", "lo ", "wörld"), event(usage=USAGE))


@pytest.fixture(scope="module")
async def other() -> AsyncIterator[Web]:
    """The server that is asked."""
    async with web() as made:
        yield made


@pytest.fixture(scope="module")
async def hub(tmp_path_factory: pytest.TempPathFactory, other: Web) -> AsyncIterator[Served]:
    """A server whose workflows may ask the other one, with a blob."""
    async with served(tmp_path_factory.mktemp("chatting"), http_allow=f"127.0.0.1:{other.port}") as server:
        async with connected(server.address, server.admin_key) as api:
            await acme.organization(api)
            await acme.blob(api)
        yield server


@pytest.fixture
async def api(hub: Served, other: Web) -> AsyncIterator[Api]:
    other.respond = lambda got: HELLO
    other.asked.clear()
    async with connected(hub.address, hub.admin_key) as made:
        yield made


def chats(other: Web, *given: str, policy: Any = None, outputs: Sequence[str] = OUTPUTS, **settings: Any) -> str:
    """A workflow that asks, with a prompt unless it has messages."""
    told = {"base_url": f"{other.url}/v1/", "model": "m"} | ({} if "messages" in {*settings, *given} else {"prompt": "Hi"})
    constant = {name: value for name, value in (told | settings).items() if name not in given}
    return fetches(*given, type_=CHAT, outputs=tuple(outputs), policy=policy, **constant)


async def shown(api: Api, execution: execution_pb2.Execution) -> list[str]:
    """The texts that watchers saw."""
    events = (await ask(api, "ListEvents", session=execution.session_id, types=["processor.output"])).events
    return [each.processor_output.value.string_value for each in events]


async def test_the_answer_streams_and_is_whole_in_the_end(api: Api, other: Web) -> None:
    execution = await asked(api, chats(other))
    text = "Hello wörld"
    assert answer(execution) == {
        "text": text,
        "message": {"role": "assistant", "content": text},
        "tool_calls": [],
        "finish_reason": "stop",
        "usage": USAGE,
        "model": "m-1",
    }
    assert "".join(await shown(api, execution)) == text
    (got,) = other.asked
    assert (got.method, got.path) == ("POST", "/v1/chat/completions")
    assert got.headers["idempotency-key"] == f"{execution.id}/2"
    assert json.loads(got.body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_what_is_shown_is_in_pieces(api: Api, other: Web) -> None:
    other.respond = lambda got: streamed(*tokens("x" * 1500, "y" * 1500, "z"))
    pieces = await shown(api, await asked(api, chats(other, outputs=["text"])))
    assert len(pieces) >= 2
    assert "".join(pieces) == "x" * 1500 + "y" * 1500 + "z"


async def test_messages_come_between_the_system_and_the_prompt(api: Api, other: Web) -> None:
    value = {"type": "message", "message": {"role": "assistant", "content": [{"type": "text", "text": "b"}]}}
    messages = [{"role": "user", "content": "a"}, value, {"role": "tool", "tool_call_id": "1", "content": "c"}]
    document = chats(other, "messages", system="s", prompt="p", temperature=0.5, options={"max_tokens": 7, "seed": 1})
    answer(await asked(api, document, messages=messages))
    sent = json.loads(other.asked[0].body)
    assert [(each["role"], each["content"]) for each in sent["messages"]] == [
        ("system", "s"),
        ("user", "a"),
        ("assistant", "b"),
        ("tool", "c"),
        ("user", "p"),
    ]
    assert (sent["temperature"], sent["max_tokens"], sent["seed"]) == (0.5, 7, 1)


async def test_calls_of_tools_are_put_together(api: Api, other: Web) -> None:
    def call(index: int, arguments: str, **fields: Any) -> bytes:
        return event({"tool_calls": [{"index": index, "function": {"arguments": arguments}} | fields]})

    begin = [
        event({"tool_calls": [{"index": number, "id": f"c{number}", "function": {"name": name, "arguments": ""}}]})
        for number, name in enumerate(["weather", "time"])
    ]
    other.respond = lambda got: streamed(
        *begin, call(0, '{"city"'), call(1, "{}"), call(0, ': "Oslo"}'), event({}, "tool_calls")
    )
    tools = [{"type": "function", "function": {"name": "weather"}}]
    result = answer(await asked(api, chats(other, tools=tools)))
    calls = [
        {"id": "c0", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
        {"id": "c1", "type": "function", "function": {"name": "time", "arguments": "{}"}},
    ]
    assert (result["tool_calls"], result["finish_reason"], result["text"]) == (calls, "tool_calls", "")
    assert result["message"] == {"role": "assistant", "content": None, "tool_calls": calls}
    assert json.loads(other.asked[0].body)["tools"] == tools


async def test_an_answer_may_come_in_one(api: Api, other: Web) -> None:
    whole = {"model": "m-1", "choices": [{"message": {"content": "Hello"}, "finish_reason": "length"}], "usage": USAGE}
    other.respond = lambda got: said(json.dumps(whole), type_="application/json")
    for settings in ({"stream": False}, {}):  # Some servers do not stream, whatever they are told.
        execution = await asked(api, chats(other, **settings))
        result = answer(execution)
        assert (result["text"], result["finish_reason"], result["usage"]) == ("Hello", "length", USAGE)
        assert await shown(api, execution) == ["Hello"]
    assert "stream_options" not in json.loads(other.asked[0].body)


@pytest.mark.parametrize("cut", [1, 7, 100])
async def test_a_stream_may_be_cut_anywhere(api: Api, other: Web, cut: int) -> None:
    data = b": a comment\r\n\r\n" + b"".join([*HELLO.pieces]).replace(b"\n", b"\r\n")
    other.respond = lambda got: streamed(*(data[at : at + cut] for at in range(0, len(data), cut)), end=b"")
    result = answer(await asked(api, chats(other)))
    assert (result["text"], result["usage"]) == ("Hello wörld", USAGE)


BROKEN: list[tuple[str, Answer, str, bool]] = [
    ("refused", said('{"error": {"message": "bad model"}}', 400), "HTTP_STATUS", False),
    ("too many", said("slow down", 429), "HTTP_STATUS", True),
    ("out of order", said("", 500), "HTTP_STATUS", True),
    ("no end", streamed(*tokens("Hel")[:-1], end=b""), "CHAT_INCOMPLETE", True),
    ("an error", streamed(*tokens("Hel")[:-1], b'data: {"error": {"message": "overloaded"}}\n\n'), "CHAT_INCOMPLETE", True),
    (
        "cut off",
        Answer(headers=[("content-type", "text/event-stream")], pieces=[b"data"], length=99),
        "HTTP_UNREACHABLE",
        True,
    ),
    ("no JSON", streamed(b"data: {\n\n"), "CHAT_BAD_RESPONSE", False),
    ("no choices", streamed(b"data: {}\n\n"), "CHAT_BAD_RESPONSE", False),
    ("a page", said("<html>", type_="text/html"), "CHAT_BAD_RESPONSE", False),
    ("an event without end", streamed(b"data: " + b"x" * (2 << 20)), "CHAT_BAD_RESPONSE", False),
    ("endless text", streamed(*tokens(*["x" * 900_000] * 3)), "CHAT_BAD_RESPONSE", False),
]


@pytest.mark.parametrize(("sent", "reason", "again"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
async def test_what_breaks_has_a_reason_and_what_may_pass_is_tried_again(
    api: Api, other: Web, sent: Answer, reason: str, again: bool
) -> None:
    answers = [sent, HELLO]
    other.respond = lambda got: answers.pop(0) if len(answers) > 1 else answers[0]
    policy = {"retry": {"maximum_attempts": 2, "initial_interval": "0.01s"}}
    execution = await asked(api, chats(other, policy=policy))
    if again:
        assert answer(execution)["text"] == "Hello wörld"
        assert len({got.headers["idempotency-key"] for got in other.asked}) == 1
    else:
        assert execution.failure.reason == reason
    assert len(other.asked) == (2 if again else 1)
    answers[:] = [sent]
    assert (await asked(api, chats(other))).failure.reason == reason


async def test_a_stream_that_stops_is_given_up(api: Api, other: Web) -> None:
    other.respond = lambda got: streamed(*tokens("Hel")[:-1], end=b"", hang=True)
    assert (await asked(api, chats(other, timeout=0.3))).failure.reason == "HTTP_TIMEOUT"


def echo(got: Asked) -> Answer:
    """The key that came, character by character."""
    return streamed(*tokens(*got.headers["authorization"], " end"))


async def test_the_key_goes_out_and_is_in_nothing_that_is_shown(api: Api, other: Web) -> None:
    token = secret("a key of a model's server")
    await credential(api, "openai", api_key=token)
    other.respond = echo
    execution = await asked(api, chats(other, credential="openai"))
    assert other.asked[0].headers["authorization"] == f"Bearer {token}"
    assert answer(execution)["text"] == "Bearer [credential] end"
    assert "".join(await shown(api, execution)) == "Bearer [credential] end"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"base_url": "openai"}, "must be a text that begins with https://"),
    ({"model": ""}, "must be a text that is not empty"),
    ({"temperature": 3}, "must be a number from 0 to 2"),
    ({"messages": [{"role": "robot", "content": ""}]}, "must be a list of messages"),
    ({"messages": "Hi"}, "must be a list of messages"),
    ({"tools": {}}, "must be a list of objects"),
    ({"options": {"stream": False}}, "there is a data input for it"),
    ({"credential": "No"}, "must be the alias of a credential"),
]


@pytest.mark.parametrize(("settings", "says"), WRONG, ids=[str(settings)[:30] for settings, _ in WRONG])
async def test_what_cannot_be_asked_is_told_by_check_and_when_it_comes(
    api: Api, other: Web, settings: dict[str, Any], says: str
) -> None:
    problems = (await ask(api, "CheckDefinition", revision=acme.DRAFT, document=chats(other, **settings))).problems
    assert any(says in problem.message for problem in problems), problems
    failure = (await asked(api, chats(other, *settings), **settings)).failure
    assert (failure.reason, says in failure.message) == ("INVALID_INPUT", True), failure


async def test_without_a_message_nothing_is_asked(api: Api, other: Web) -> None:
    assert (await asked(api, chats(other, messages=[]))).failure.reason == "INVALID_INPUT"
    assert other.asked == []
