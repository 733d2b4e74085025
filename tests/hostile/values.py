"""Hostile values: as texts, and as protobuf that no client would make, on every way in that takes values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial

import flows

from hostile.attacker import Attacker, Member
from hostile.texts import BOUND, compact, nested, repeated
from hostile.wire import field, message

REPEATED = {
    "nulls": "null",
    "zeros": "0",
    "truths": "true",
    "empty texts": '""',
    "empty lists": "[]",
    "empty objects": "{}",
    "short texts": '"a"',
    "long numbers": "0.12345678901234567",
    "exponents": "1e308",
    "exponents that take much room": "1e15",
    "64 bits": "18446744073709551615",
    "65 bits": "18446744073709551616",
    "10^400": "1e400",
    "NaN": "NaN",
    "minus zero": "-0.0",
    "objects of one key": '{"a":null}',
    "lists of lists": "[[[[[[0]]]]]]",
    "deep lists": nested(23),
    "deep objects": nested(23, objects=True),
    "too deep lists": nested(24),
    "surrogates": '"\\ud800"',
    "texts that are wrapped": '{"type":"text","text":"a"}',
}
"""What lists are full of."""

TEXTS: dict[str, Callable[[], str]] = {
    **{f"a list of {name}": partial(repeated, item) for name, item in REPEATED.items()},
    "one at the depth": lambda: nested(24),
    "one too deep": lambda: nested(25),
    "half a million deep": lambda: nested(500_000, ""),
    "half a million deep and unclosed": lambda: "[" * BOUND,
    "objects 190,000 deep and unclosed": lambda: '{"":' * (BOUND // 4),
    "brackets in a text": lambda: json.dumps("[{" * 520_000),
    "closed too often": lambda: "[]" + "]" * (BOUND - 2),
    "an object of 70,000 keys": lambda: compact({f"k{number}": number for number in range(70_000)}),
    "one key, twice": lambda: '{"a":1,"a":2}',
    "one key, 100,000 times": lambda: "{" + ",".join(['"a":0'] * 100_000) + "}",
    "a long key": lambda: compact({"k" * 1_000_000: 1}),
    "many long keys": lambda: compact({"k" * 1_000 + str(number): 1 for number in range(1_000)}),
    "keys of one hash in old tables": lambda: compact({str(number << 32): 0 for number in range(50_000)}),
    "one long text": lambda: json.dumps("x" * (BOUND - 2)),
    "one too long text": lambda: json.dumps("x" * (BOUND - 1)),
    "controls": lambda: json.dumps("\x00" * 170_000),
    "escapes": lambda: json.dumps('"\\' * 250_000),
    "wide signs": lambda: json.dumps("\U0001d11e" * 260_000, ensure_ascii=False),
    "surrogates": lambda: '"' + "\\ud800" * 170_000 + '"',
    "pairs of surrogates": lambda: '"' + "\\ud834\\udd1e" * 87_000 + '"',
    "one surrogate": lambda: '{"a":"\\udfff"}',
    "a million digits": lambda: "9" * 1_000_000,
    "a million digits behind the point": lambda: "0." + "9" * 1_000_000,
    "10^400": lambda: "1e400",
    "a huge exponent": lambda: "1e" + "9" * 1_000_000,
    "blank": lambda: " " * BOUND,
    "blank around": lambda: " " * 500_000 + "1" + "\n" * 500_000,
    "blank between": lambda: "[" + " ," * 500_000 + "]",
    "wrong at the end": lambda: repeated("0", bound=BOUND - 10) + "]",
    "wrong in a text at the end": lambda: '["' + "x" * 1_000_000 + "\n",
    "a mark of the order of bytes": lambda: "\ufeff1",
    "not a character": lambda: '"\uffff"',
    "wrapped again and again": lambda: '{"type":"json","json":' * 20 + "1" + "}" * 20,
    "messages of many parts": lambda: compact(
        {
            "type": "message",
            "message": {"role": "user", "content": [{"type": "text", "text": "a"}] * 30_000, "attributes": {}},
        }
    ),
    "an expression": lambda: '{"type":"expression","expression":"[x for x in range(10 ** 9)]"}',
    "a template of many parts": lambda: json.dumps({"type": "template", "template": "{{ 1 }}" * 100_000}),
}
"""JSON texts, well formed or not."""

NULL = field(1, 0)
MESSAGE_BYTES = (4 << 20) - 1_000
"""What a message may have, without what is around a value."""


def _many(value: bytes) -> bytes:
    """A list of one value, as often as fits into a message."""
    return field(6, field(1, value) * (MESSAGE_BYTES // len(field(1, value))))


def _deep(count: int, inner: bytes = NULL) -> bytes:
    for _ in range(count):
        inner = field(6, field(1, inner))
    return inner


def _struct(keys: Iterator[bytes], value: bytes = NULL) -> bytes:
    return field(5, b"".join(field(1, field(1, key) + field(2, value)) for key in keys))


VALUES: dict[str, Callable[[], bytes]] = {
    "950,000 nulls": lambda: field(6, field(1, NULL) * 950_000),
    "nulls, a message full": lambda: _many(NULL),
    "values that are none": lambda: _many(b""),
    "zeros": lambda: _many(field(2, 0.0)),
    "one and a half": lambda: _many(field(2, 1.5)),
    "NaN": lambda: _many(field(2, float("nan"))),
    "infinite": lambda: field(2, float("inf")),
    "truths": lambda: _many(field(4, 1)),
    "empty texts": lambda: _many(field(3, b"")),
    "short texts": lambda: _many(field(3, b"a")),
    "empty lists": lambda: _many(field(6, b"")),
    "empty objects": lambda: _many(field(5, b"")),
    "objects of one key": lambda: _many(_struct(iter([b"a"]))),
    "lists of thirty": lambda: _many(_deep(30)),
    "deep lists": lambda: _many(_deep(11)),
    "one list in 24": lambda: _deep(24),
    "one list in 25": lambda: _deep(25),
    "one list in 48": lambda: _deep(48),
    "one list in 60": lambda: _deep(60),
    "one list in 20,000": lambda: _deep(20_000),
    "an object of 300,000 keys": lambda: _struct(b"k%d" % number for number in range(250_000)),
    "an object of one key, 400,000 times": lambda: _struct(b"a" for _ in range(400_000)),
    "an object of long keys": lambda: _struct(b"k" * 1_000 + b"%d" % number for number in range(4_000)),
    "a key of four million": lambda: _struct(iter([b"k" * 4_100_000])),
    "a text of four million": lambda: field(3, b"x" * 4_100_000),
    "a text of a million signs": lambda: field(3, "\U0001d11e".encode() * 1_000_000),
    "a text that is none": lambda: field(3, b"\xff" * 4_000_000),
    "a text with a surrogate": lambda: field(3, b"\xed\xa0\x80"),
    "one value after another": lambda: NULL * (MESSAGE_BYTES // 2),
    "one list after another": lambda: field(6, field(1, NULL)) * 500_000,
    "one text after another": lambda: field(3, b"x" * 100) * 40_000,
    "fields that nobody knows": lambda: field(99, 1) * 1_000_000,
    "groups that nobody knows": lambda: (b"\x9b\x06\x9c\x06") * 1_000_000,
    "unclosed groups": lambda: b"\x9b\x06" * 2_000_000,
    "a list that is cut": lambda: field(6, field(1, NULL) * 900_000)[:-1],
    "random bytes": lambda: bytes(range(256)) * 16_000,
}
"""Values as protobuf."""


def members() -> Iterator[Member]:
    """Every text and every value on every way in."""
    for way, attack in TEXT_WAYS.items():
        for name, text in TEXTS.items():
            yield _member(f"{way}: {name}", partial(_tagged, way, text), partial(attack, text))
    for name, item in REPEATED.items():
        small = partial(repeated, item, bound=64 << 10)
        yield _member(f"metadata: a list of {name}", partial(_tagged, "metadata", small), partial(_metadata, small))
    for way, attack in VALUE_WAYS.items():
        for name, value in VALUES.items():
            yield _member(f"{way} as protobuf: {name}", partial(_tagged, way, value), partial(attack, value))


def _member(name: str, content: Callable[[], str | bytes], attack: Callable[[Attacker], object]) -> Member:
    return Member(kind="value", name=name, content=content, attack=attack)  # type: ignore[arg-type]


def _tagged(way: str, make: Callable[[], str | bytes]) -> str | bytes:
    made = make()
    return f"{way} {made}" if isinstance(made, str) else way.encode() + made


async def _object(make: Callable[[], str], attacker: Attacker) -> None:
    if await attacker.ask("PutSessionObject", session=attacker.session, alias="hostile", value_json=make()):
        await _read_object(attacker)


async def _read_object(attacker: Attacker) -> None:
    await attacker.ask("GetSessionObject", session=attacker.session, alias="hostile")
    await attacker.ask("ListSessionObjects", session=attacker.session, alias_prefix="hostile")
    await attacker.ask("DeleteSessionObject", session=attacker.session, alias="hostile")


async def _metadata(make: Callable[[], str], attacker: Attacker) -> None:
    text = make()
    if await attacker.ask("CreateMetadata", parent=attacker.draft, key="hostile", value_json=text):
        await attacker.ask("ResolveMetadata", revision=attacker.draft, keys=["hostile"])
    await attacker.ask("UpdateMetadata", parent=attacker.draft, key="hostile", value_json=text)
    await attacker.ask("DeleteMetadata", parent=attacker.draft, key="hostile")


PASSING = flows.document(
    [
        flows.component("start", "flow.start"),
        flows.value("given", "given", persistence="execution"),
        flows.component("script", "logic.code", code="set_data_output('result', inputs.get('given'))"),
        flows.component("end", "flow.end"),
    ],
    [
        flows.control("start", "script"),
        flows.control("script", "end", "success"),
        flows.data("given", "value", "script", "given"),
        flows.data("script", "result", "end", "value"),
    ],
)
"""The result is what was given, through a script."""


async def _input(make: Callable[[], str], attacker: Attacker) -> None:
    await attacker.run(PASSING, given=make())


async def _document(make: Callable[[], str], attacker: Attacker) -> None:
    """As a constant, in the text of a definition."""
    marked = json.loads(PASSING)
    marked["components"][1]["ports"][-1]["value"] = "here"
    document = json.dumps(marked).replace('"here"', make()).replace('"execution"', '"definition"')
    await attacker.ask("CheckDefinition", revision=attacker.draft, document=document)
    await attacker.run(document)


async def _object_of(make: Callable[[], bytes], attacker: Attacker) -> None:
    request = message("PutSessionObject", session=attacker.session, alias="hostile") + field(3, make())
    if await attacker.send("PutSessionObject", request):
        await _read_object(attacker)


async def _metadata_of(make: Callable[[], bytes], attacker: Attacker) -> None:
    request = message("CreateMetadata", parent=attacker.draft, key="hostile") + field(3, make())
    if await attacker.send("CreateMetadata", request):
        await attacker.ask("GetMetadata", parent=attacker.draft, key="hostile")
    await attacker.ask("DeleteMetadata", parent=attacker.draft, key="hostile")


async def _input_of(make: Callable[[], bytes], attacker: Attacker) -> None:
    await attacker.put(PASSING)
    spec = field(1, b"hostile") + field(2, field(1, b"given") + field(2, make()))
    await attacker.send("RunExecution", message("RunExecution", session=attacker.session) + field(2, spec))


async def _content_of(make: Callable[[], bytes], attacker: Attacker) -> None:
    """As a constant, in the message of a definition."""
    port = field(1, b"data_output") + field(2, b"value") + field(3, make())
    part = field(1, b"start") + field(3, b"flow.start") + field(6, port)
    content = field(4, field(1, b"workflow_definition") + field(2, b"1.0.1") + field(3, part))
    put = message("PutDefinition", revision=attacker.draft, alias="hostile-content") + content
    if await attacker.send("PutDefinition", put):
        await attacker.ask("GetDefinition", definition=f"{attacker.draft}/hostile-content")
    await attacker.send("CheckDefinition", message("CheckDefinition", revision=attacker.draft) + content)


TEXT_WAYS = {"session object": _object, "input": _input, "constant": _document}
VALUE_WAYS = {"session object": _object_of, "metadata": _metadata_of, "input": _input_of, "constant": _content_of}
