"""Hostile calls: requests, metadata, tokens and references that no client would send, and crowds of calls."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import flows
import grpc
from calling import METHODS
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from methods import Method, served_methods
from served import WORKFLOW

from hostile.attacker import Attacker, Member, together
from hostile.texts import repeated
from hostile.wire import field, message

FULL = (4 << 20) - 100
"""About what a message may have."""


def members() -> Iterator[Member]:
    """What can be done to every method, and what is done to some."""
    for number, method in enumerate(served_methods()):
        yield _sent(method, "every text as long as may be", partial(long_texts, method.input))
        name, make = list(SHAPES.items())[number % len(SHAPES)]
        yield _sent(method, name, partial(make, method.input))
    for (method, fields), (name, value) in itertools.product(ASKED.items(), REFERENCES.items()):
        yield _asked(method, f"with {name}", {fields: value})
    for method, (name, token) in itertools.product(LISTS, TOKENS.items()):
        yield _asked(method, f"page token {name}", LISTS[method] | {"page_token": token})
    for name, metadata in METADATA.items():
        yield _own(f"metadata: {name}", partial(_with_metadata, metadata))
    for name, attack in CROWDS.items():
        yield _own(name, attack)


def _own(name: str, attack: Callable[[Attacker], Awaitable[object]]) -> Member:
    return Member(kind="call", name=name, content=partial(str, name), attack=attack)


def _sent(method: Method, name: str, make: Callable[[], bytes]) -> Member:
    async def attack(attacker: Attacker) -> None:
        await attacker.send(method.name, make(), timeout=20)

    return Member(kind="call", name=f"{method.name}: {name}", content=lambda: method.path.encode() + make(), attack=attack)


def _asked(method: str, name: str, fields: dict[str, Any]) -> Member:
    async def attack(attacker: Attacker) -> None:
        known = {"draft": attacker.draft, "session": attacker.session, "blob": attacker.blob, "org": attacker.organization}
        told = {key: value.format(**known) if isinstance(value, str) else value for key, value in fields.items()}
        await attacker.ask(method, **told)

    return Member(kind="call", name=f"{method} {name}", content=lambda: f"{method}{fields}", attack=attack)


def long_texts(kind: Descriptor, room: int = FULL, depth: int = 0) -> bytes:
    """A message whose texts are as long as all of them may be together; what is not text is left out."""
    texts = [made for made in kind.fields if made.cpp_type == FieldDescriptor.CPPTYPE_STRING]
    inner = [made for made in kind.fields if made.message_type is not None and depth < 3]
    each = (room - 100 * (len(texts) + len(inner))) // max(1, len(texts) + len(inner))
    if each < 100:
        return b""
    made = b"".join(field(text.number, b"a" * each) for text in texts)
    return made + b"".join(field(one.number, long_texts(one.message_type, each, depth + 1)) for one in inner)


def _empty_fields(kind: Descriptor) -> bytes:
    """Every field that is a text, a list or a message, empty, over and over."""
    numbers = [made.number for made in kind.fields if made.cpp_type >= FieldDescriptor.CPPTYPE_STRING] or [1]
    once = b"".join(field(number, b"") for number in numbers)
    return once * (FULL // len(once))


SHAPES: dict[str, Callable[[Descriptor], bytes]] = {
    "every field empty, over and over": _empty_fields,
    "fields that nobody knows": lambda kind: field(9_999, 1) * (FULL // len(field(9_999, 1))),
    "random bytes": lambda kind: bytes(range(255, -1, -1)) * 16_000,
    "groups in groups": lambda kind: b"\x0b" * FULL,
    "one byte": lambda kind: b"\x0a",
    "a message that is too large": lambda kind: field(1, b"a" * (5 << 20)),
    "texts of controls": lambda kind: b"".join(
        field(made.number, b"\x00\x1b[2J\n" * 40) for made in kind.fields if made.type == FieldDescriptor.TYPE_STRING
    ),
}
"""What a request may be instead."""

REFERENCES = {
    "a reference of 100,000 steps": "acme/" * 100_000,
    "a reference of a million signs": "a" * 1_000_000,
    "a number of 180 digits": "acme/pipeline@" + "9" * 170,
    "signs that are not ours": "ä/ö@ü",
    "a nothing": "\x00",
    "at signs": "@" * 128,
    "percents": "%" * 60 + "/%s%n",
    "an id of zeros": "00000000-0000-0000-0000-000000000000",
    "a word of SQL": "' OR 1=1; DROP TABLE blobs; --",
    "dots": "../../../../etc/passwd",
}
"""What a request may refer to."""

ASKED = {
    "GetBlob": "blob",
    "GetRevision": "revision",
    "GetSession": "session",
    "GetDefinition": "definition",
    "GetExecution": "execution",
    "WatchSession": "session",
    "GetCaller": "parent",
    "ListAuditEntries": "parent",
}
"""The field that refers, of some methods."""

LISTS: dict[str, dict[str, str]] = {
    "ListBlobs": {"organization": "{org}"},
    "ListEvents": {"session": "{session}"},
    "ListMetadata": {"parent": "{draft}"},
    "ListSessionObjects": {"session": "{session}"},
    "ListExecutions": {"blob": "{blob}"},
}
TOKENS = {
    "of a thousand signs": "A" * 1_024,
    "of a million signs": "A" * 1_000_000,
    "of zeros": base64.urlsafe_b64encode(b"\x00" * 700).decode(),
    "of text that is none": base64.urlsafe_b64encode(b"\xff" * 40).decode(),
    "of JSON": base64.urlsafe_b64encode(b"[" * 700).decode(),
}

METADATA: dict[str, list[tuple[str, str | bytes]]] = {
    "a key of 7,000 signs": [("authorization", "Bearer bhk_" + "a" * 7_000)],
    "a key that is none": [("authorization", "Bearer")],
    "a key in Latin": [("authorization", "Basic YTpi")],
    "fifty keys": [("x-api-key", f"bhk_{number:016}_{'a' * 40}") for number in range(50)],
    "both keys": [("authorization", "Bearer x"), ("x-api-key", "y")],
    "a token of a million dots": [("authorization", "Bearer " + "." * 7_000)],
    "a token that names no algorithm": [("authorization", "Bearer eyJhbGciOiJub25lIn0.e30.")],
    "a token that is deep": [("authorization", "Bearer " + base64.urlsafe_b64encode(b"[" * 5_000).decode() + ".e30.a")],
    "three hundred small ones": [(f"x-{number}", "a") for number in range(300)],
    "one of 7,000 signs": [("x-long", "a" * 7_000)],
    "binary": [("x-some-bin", bytes(range(256)) * 20)],
    "a trace that is none": [("traceparent", "00-" + "f" * 6_000)],
    "a far too long one": [("x-long", "a" * 200_000)],
}


async def _with_metadata(metadata: list[tuple[str, str | bytes]], attacker: Attacker) -> None:
    """Fifty calls with such metadata, from one who has no key beside."""
    path = METHODS["GetBlob"].path
    data = message("GetBlob", blob=attacker.blob)

    async def call() -> None:
        try:
            await attacker.anonymous.channel.unary_unary(path)(data, metadata=metadata, timeout=20)
        except grpc.aio.AioRpcError as error:
            attacker.outcomes[f"GetBlob {error.code().name} with metadata"] += 1

    await together(*(call() for _ in range(50)))


async def _masks(attacker: Attacker) -> None:
    paths = b"".join(field(1, b"description") for _ in range(250_000))
    await attacker.send("UpdateBlob", message("UpdateBlob", blob=attacker.blob) + field(2, paths) + field(5, paths))
    for path in ("description", "no.such", "a." * 50_000, "*", ""):
        await attacker.ask("UpdateBlob", blob=attacker.blob, update_mask={"paths": [path] * 1_000}, description="x")


async def _filters(attacker: Attacker) -> None:
    for prefix in ("%" * 63, "_" * 63, "a" * 63, "\\", "'", "[a-z]*", "\x00", "é" * 63):
        await attacker.ask("ListBlobs", organization=attacker.organization, alias_prefix=prefix)
        await attacker.ask("ListSessionObjects", session=attacker.session, alias_prefix=prefix * 4)
        await attacker.ask("ListMetadata", parent=attacker.draft, key_prefix=prefix * 4)


async def _orders(attacker: Attacker) -> None:
    for order in ("alias desc", "alias," * 10_000, "1; DROP TABLE blobs", "random()", "a" * 1_000_000):
        await attacker.ask("ListBlobs", organization=attacker.organization, order_by=order)
        await attacker.ask("ListEvents", session=attacker.session, order_by=order)


async def _types(attacker: Attacker) -> None:
    for count in (100, 101, 200_000):
        await attacker.ask("ListEvents", session=attacker.session, types=["flow.entered"] * count)


async def _keys(attacker: Attacker) -> None:
    for count in (256, 257, 300_000):
        await attacker.ask("ResolveMetadata", revision=attacker.draft, keys=[f"k{number}" for number in range(count)])


async def _inputs(attacker: Attacker) -> None:
    """As many inputs as may be, and many more."""
    await attacker.put(flows.steps(1))
    for count in (256, 257, 100_000):
        inputs = [{"alias": f"a{number}", "value_json": "[" * 30} for number in range(count)]
        spec = {"definition": "hostile", "input_data": inputs}
        await attacker.ask("StartExecution", session=attacker.session, spec=spec)


async def _records(attacker: Attacker) -> None:
    """As much metadata as a draft may have, listed and resolved."""
    blob = await attacker.new_blob()
    text = repeated('"abcdefgh"', bound=64 << 10)
    for number in range(256):
        await attacker.ask("CreateMetadata", parent=f"{blob}@draft", key=f"k{number}", value_json=text)
    await attacker.ask("ListMetadata", parent=f"{blob}@draft", page_size=1000)
    await attacker.ask("ResolveMetadata", revision=f"{blob}@draft", page_size=1000)
    await attacker.ask("ResolveMetadata", revision=f"{blob}@draft", keys=[f"k{number}" for number in range(256)])
    await attacker.ask("DeleteBlob", blob=blob)


async def _objects(attacker: Attacker) -> None:
    """Forty large objects of a session at once, listed and deleted."""
    names = [f"crowd/{number}" for number in range(40)]
    put = partial(attacker.ask, "PutSessionObject", session=attacker.session, value_json=repeated("null"))
    await together(*(put(alias=name) for name in names))
    await together(
        *(
            attacker.ask("ListSessionObjects", session=attacker.session, alias_prefix="crowd", page_size=1000)
            for _ in range(8)
        )
    )
    await together(*(attacker.ask("DeleteSessionObject", session=attacker.session, alias=name) for name in names))


async def _one_object(attacker: Attacker) -> None:
    """One object, by sixty who write at once."""
    put = partial(attacker.ask, "PutSessionObject", session=attacker.session, alias="one", value_json=repeated('"a"'))
    await together(*(put() for _ in range(60)))


async def _blobs(attacker: Attacker) -> None:
    """Two hundred blobs, at once, listed and deleted at once."""
    names = [f"many-{number}" for number in range(200)]
    create = partial(attacker.ask, "CreateBlob", organization=attacker.organization, type=WORKFLOW)
    await together(*(create(alias=name) for name in names))
    await attacker.ask("ListBlobs", organization=attacker.organization, page_size=1000)
    await together(*(attacker.ask("DeleteBlob", blob=f"{attacker.organization}/{name}") for name in names))


async def _sessions(attacker: Attacker) -> None:
    """Four hundred sessions, watched, listed and closed."""
    await together(*(attacker.ask("CreateSession", revision=attacker.draft, alias=f"s{n}") for n in range(400)))
    await attacker.ask("ListSessions", blob=attacker.blob, page_size=1000)
    await together(*(attacker.ask("CloseSession", session=f"{attacker.draft}/s{n}") for n in range(400)))


async def _watchers(attacker: Attacker) -> None:
    """Two hundred who watch one session from its beginning."""
    watch = partial(attacker.ask, "WatchSession", session=attacker.session, replay_only=True)
    await together(*(watch() for _ in range(200)))


async def _executions(attacker: Attacker) -> None:
    """Three hundred executions started at once, then listed, with the events of all."""
    await attacker.put(flows.steps(5))
    start = partial(attacker.ask, "StartExecution", session=attacker.session, spec={"definition": "hostile"})
    await together(*(start() for _ in range(300)))
    await attacker.ask("ListExecutions", blob=attacker.blob, page_size=1000)
    await attacker.ask("ListEvents", session=attacker.session, page_size=1000)


async def _waiting(attacker: Attacker) -> None:
    """Three hundred executions that wait, stopped at once."""
    await attacker.put(flows.delay(600))
    start = partial(attacker.ask, "StartExecution", session=attacker.session, spec={"definition": "hostile"})
    await together(*(start() for _ in range(300)))
    blob = await attacker.new_blob()
    await attacker.ask("DeleteBlob", blob=blob)
    await attacker.ask("CloseSession", session=attacker.session)
    await attacker.new_session()


async def _looping(attacker: Attacker) -> None:
    """Twenty executions that go round for ten thousand steps, at once."""
    it = flows.component("it", "logic.expression", ports=[flows.port("data_input", "n", 0)], expression="n + 1")
    links = [flows.control("start", "it"), flows.control("it", "it", "success"), flows.data("it", "result", "it", "n")]
    await attacker.put(flows.document([flows.component("start", "flow.start"), it], links))
    spec = {"definition": "hostile", "timeout": {"seconds": 20}}
    await together(*(attacker.ask("RunExecution", session=attacker.session, spec=spec) for _ in range(20)))


async def _repeats(attacker: Attacker) -> None:
    """One request, three hundred times at once; then others under its id."""
    request_id = "00000000-0000-4000-8000-000000000001"
    create = partial(attacker.ask, "CreateSession", revision=attacker.draft, request_id=request_id)
    await together(*(create() for _ in range(300)))
    await together(*(create(description=str(number)) for number in range(100)))


async def _strangers(attacker: Attacker) -> None:
    """Five hundred calls at once with keys that nobody has, half of them malformed."""
    path, data = METHODS["GetCaller"].path, b""

    async def call(number: int) -> None:
        key = f"bhk_{number:022}_{'A' * 49}" if number % 2 else "bhk_x"
        try:
            await attacker.anonymous.channel.unary_unary(path)(data, metadata=[("x-api-key", key)], timeout=20)
        except grpc.aio.AioRpcError as error:
            attacker.outcomes[f"GetCaller {error.code().name} for a stranger"] += 1

    await together(*(call(number) for number in range(500)))


async def _unknown_methods(attacker: Attacker) -> None:
    async def call(path: str) -> None:
        try:
            await attacker.anonymous.channel.unary_unary(path)(b"x" * 10_000, timeout=20)
        except grpc.aio.AioRpcError as error:
            attacker.outcomes[f"unknown method {error.code().name}"] += 1

    await together(*(call(f"/blobhub.v1.BlobService/No{number}{'o' * (number * 10)}") for number in range(300)))


async def _reflection(attacker: Attacker) -> None:
    """Questions about names that there are not, and about every file, from one without a key."""
    names = ["blobhub.v1.BlobService", "x" * 100_000, ".", "blobhub.v1." * 5_000, "google.protobuf.Value"]
    for version in ("v1", "v1alpha"):
        questions = [field(4, name.encode()) for name in names] + [field(7, b"*"), field(3, b"../" * 1_000), b""]
        stream = attacker.anonymous.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        )
        try:
            async for _ in stream(iter([*questions * 40, b"\xff"]), timeout=30):
                pass
        except grpc.aio.AioRpcError as error:
            attacker.outcomes[f"reflection {error.code().name}"] += 1


async def _health(attacker: Attacker) -> None:
    """Three hundred who watch the health of services that there are not, for a second."""

    async def call(number: int) -> None:
        watch = attacker.anonymous.channel.unary_stream("/grpc.health.v1.Health/Watch")
        stream = watch(field(1, b"no.such" * number), timeout=2)
        try:
            async for _ in stream:
                pass
        except grpc.aio.AioRpcError as error:
            attacker.outcomes[f"health {error.code().name}"] += 1

    await together(*(call(number) for number in range(300)))


async def _impatient(attacker: Attacker) -> None:
    """Five hundred calls whose deadlines are over before, or a moment after, they arrive."""
    path, data = METHODS["ListEvents"].path, message("ListEvents", session=attacker.session, page_size=1000)

    async def call(number: int) -> None:
        try:
            await attacker.api.channel.unary_unary(path)(data, timeout=number % 20 / 2_000)
        except grpc.aio.AioRpcError as error:
            attacker.outcomes[f"impatient {error.code().name}"] += 1

    await together(*(call(number) for number in range(500)))


async def _leavers(attacker: Attacker) -> None:
    """Two hundred who ask for everything and leave after the first answer."""
    path, data = METHODS["WatchSession"].path, message("WatchSession", session=attacker.session)

    async def call() -> None:
        stream = attacker.api.channel.unary_stream(path)(data, timeout=20)
        await asyncio.wait([asyncio.ensure_future(stream.read())], timeout=5)
        stream.cancel()

    await together(*(call() for _ in range(200)))


CROWDS: dict[str, Callable[[Attacker], Awaitable[object]]] = {
    "masks of very many paths": _masks,
    "filters that mean something elsewhere": _filters,
    "orders that there are not": _orders,
    "events of very many types": _types,
    "metadata of very many keys": _keys,
    "executions with very many inputs": _inputs,
    "256 records of 64 KiB": _records,
    "forty objects of a mebibyte": _objects,
    "one object, by sixty": _one_object,
    "two hundred blobs": _blobs,
    "four hundred sessions": _sessions,
    "two hundred watchers": _watchers,
    "three hundred executions": _executions,
    "three hundred that wait": _waiting,
    "twenty that go round": _looping,
    "one request id, four hundred times": _repeats,
    "five hundred strangers": _strangers,
    "three hundred methods that there are not": _unknown_methods,
    "questions about everything": _reflection,
    "three hundred who watch health": _health,
    "five hundred who do not wait": _impatient,
    "two hundred who leave": _leavers,
}
