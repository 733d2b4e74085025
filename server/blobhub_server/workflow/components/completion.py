"""Answers of chat completions, whole or as a stream of server-sent events, put together. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

MAX_EVENT_BYTES = 1 << 20
MAX_CHARACTERS = 1 << 20
"""How much the text and the calls of tools have together: no value has more."""
MAX_TOOL_CALLS = 128
END = "[DONE]"


class BadAnswer(Exception):
    """What came is no chat completion. The message says why, and repeats nothing of it."""


class Incomplete(Exception):
    """The other side says that it cannot go on. The message is its own."""


@dataclass
class EventLines:
    """Takes bytes as they come; gives the data of server-sent events (WHATWG HTML, 9.2) as it is whole."""

    _rest: bytearray = field(default_factory=bytearray)
    _data: list[str] = field(default_factory=list)
    _size: int = 0

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The data of events that are whole now. Raises BadAnswer."""
        self._rest += chunk
        self._size += len(chunk)
        # Only what is new is looked through: whoever sends a byte at a time makes no more work than others.
        if b"\n" in chunk:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
            for line in lines:
                yield from self._take(line.removesuffix(b"\r").decode("utf-8", "replace"))
        if self._size > MAX_EVENT_BYTES:
            raise BadAnswer("an event of the stream has no end")

    def _take(self, line: str) -> Iterator[str]:
        if line.startswith("data:"):
            self._data.append(line[5:].removeprefix(" "))
        elif not line:
            data, self._data, self._size = self._data, [], len(self._rest)
            if data:
                yield "\n".join(data)


@dataclass
class Call:
    """A call of a tool."""

    id: str = ""
    name: str = ""
    arguments: StringIO = field(default_factory=StringIO)

    def to_json(self) -> dict[str, Any]:
        """The call as the API has it."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments.getvalue()}}


@dataclass
class Completion:
    """A completion as far as it has come. What comes in pieces is written, and not copied anew for each."""

    written: StringIO = field(default_factory=StringIO)
    refused: StringIO = field(default_factory=StringIO)
    calls: dict[int, Call] = field(default_factory=dict)
    size: int = 0
    finish_reason: str | None = None
    usage: Any = None
    model: str = ""
    ended: bool = False

    def take_event(self, data: str) -> str:
        """Take the data of an event; the text that it adds. Raises BadAnswer and Incomplete."""
        if data.strip() == END:
            self.ended = True
            return ""
        return self._take(_parse(data), "delta")

    def take_whole(self, data: str) -> str:
        """Take an answer that came in one; its text. Raises BadAnswer and Incomplete."""
        text = self._take(_parse(data), "message")
        if self.finish_reason is None:
            raise BadAnswer("the answer has no choice that is finished")
        self.ended = True
        return text

    @property
    def text(self) -> str:
        """The text."""
        return self.written.getvalue()

    @property
    def whole(self) -> bool:
        """Whether all of it has come. Some servers send no end after the reason to finish."""
        return self.ended or self.finish_reason is not None

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The calls of tools, in order."""
        return [self.calls[index].to_json() for index in sorted(self.calls)]

    @property
    def message(self) -> dict[str, Any]:
        """The assistant's message, as it goes into `messages` of the next request."""
        made: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if refusal := self.refused.getvalue():
            made["refusal"] = refusal
        return made | ({"tool_calls": self.tool_calls} if self.calls else {})

    def _take(self, answer: Mapping[str, Any], part: str) -> str:
        if isinstance(answer.get("error"), dict | str):
            error = answer["error"]
            raise Incomplete(str(error.get("message", "") if isinstance(error, dict) else error)[:500])
        self.model = answer["model"] if isinstance(answer.get("model"), str) else self.model
        self.usage = answer["usage"] if isinstance(answer.get("usage"), dict) else self.usage
        choices = answer.get("choices")
        if not isinstance(choices, list):
            raise BadAnswer("it has no list `choices`")
        added = ""
        for choice in choices:
            if isinstance(choice, dict) and choice.get("index", 0) == 0:
                added += self._take_choice(choice, part)
        return added

    def _take_choice(self, choice: Mapping[str, Any], part: str) -> str:
        if isinstance(choice.get("finish_reason"), str):
            self.finish_reason = choice["finish_reason"]
        said = choice.get(part)
        if not isinstance(said, dict):
            return ""
        self._write(self.refused, said.get("refusal"))
        calls = said.get("tool_calls")
        for number, call in enumerate(calls if isinstance(calls, list) else []):
            if isinstance(call, dict):
                self._take_call(call, number)
        return self._write(self.written, said.get("content"))

    def _take_call(self, call: Mapping[str, Any], number: int) -> None:
        """A call of a tool, or a part of one: of a stream, its arguments come in pieces."""
        index = call.get("index", number)
        if not isinstance(index, int) or not 0 <= index < MAX_TOOL_CALLS:
            raise BadAnswer(f"it calls more than {MAX_TOOL_CALLS} tools")
        made = self.calls.setdefault(index, Call())
        made.id = call["id"] if isinstance(call.get("id"), str) else made.id
        function = call.get("function")
        if isinstance(function, dict):
            made.name = function["name"] if isinstance(function.get("name"), str) else made.name
            self._write(made.arguments, function.get("arguments"))

    def _write(self, to: StringIO, value: Any) -> str:
        """Add a text, if it is one; what was added. Raises BadAnswer."""
        text = value if isinstance(value, str) else ""
        self.size += len(text)
        if self.size > MAX_CHARACTERS:
            raise BadAnswer("it is longer than a value may be")
        to.write(text)
        return text


def _parse(data: str) -> Mapping[str, Any]:
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        raise BadAnswer("it is no JSON") from None
    if not isinstance(answer, dict):
        raise BadAnswer("it is no JSON object")
    return answer
