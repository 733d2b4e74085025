"""Hostile definitions: many parts, dense graphs, texts that double, joins, and documents that are hard to read."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import flows

from hostile.attacker import Attacker, Member, together
from hostile.texts import BOUND, nested, repeated
from hostile.wire import field, message

Part = dict[str, Any]

START, END = flows.component("start", "flow.start"), flows.component("end", "flow.end")


def small(id_: str, type_: str, *ports: tuple[str, str, Any]) -> Part:
    """A component in as few bytes as may be."""
    made: Part = {"id": id_, "type": type_}
    return made | {"ports": [{"category": c, "route": r, "value": v} for c, r, v in ports]} if ports else made


def link(source: str, target: str, route: str = "next", number: int = 0) -> Part:
    """A path of control in as few bytes as may be."""
    ends = {"source_id": source, "target_id": target, "source_port": "flow_output", "target_port": "flow_input"}
    return {"id": f"{source}{route}{target}{number}", "route": route} | ends


def document(components: list[Part], connections: list[Part]) -> str:
    """A document without a space."""
    content = {"type": "workflow_definition", "version": "1.0.1", "components": components, "connections": connections}
    return json.dumps(content, separators=(",", ":"))


def _ids(count: int) -> list[str]:
    return [f"c{number}" for number in range(count)]


def _starts(count: int) -> str:
    return document([small(id_, "flow.start") for id_ in _ids(count)], [])


def _unreachable(count: int, type_: str = "flow.end") -> str:
    return document([START, *(small(id_, type_) for id_ in _ids(count))], [])


def _same_ids(count: int) -> str:
    return document([START] * count, [link("start", "start")] * (count // 2))


def _chain(count: int, type_: str = "flow.join") -> str:
    ids = ["start", *_ids(count)]
    parts = [small(id_, type_, ("data_input", "mode", "first")) for id_ in ids[1:]]
    return document([START, *parts], [link(a, b) for a, b in itertools.pairwise(ids)])


def _dense(count: int, type_: str = "flow.join", mode: str = "all") -> str:
    """Every one leads to every other."""
    ids = _ids(count)
    parts = [small(id_, type_, ("data_input", "mode", mode)) for id_ in ids]
    return document([START, *parts], [link("start", ids[0]), *(link(a, b) for a in ids for b in ids)])


def _layers(layers: int, width: int, mode: str) -> str:
    """Each of a layer leads to each of the next."""
    grid = [[f"l{layer}w{number}" for number in range(width)] for layer in range(layers)]
    parts = [small(id_, "flow.join", ("data_input", "mode", mode)) for row in grid for id_ in row]
    links = [link("start", id_) for id_ in grid[0]]
    links += [link(a, b) for row, after in itertools.pairwise(grid) for a in row for b in after]
    return document([START, *parts], links)


def _many_between_two(count: int) -> str:
    return document([START, END], [link("start", "end", number=number) for number in range(count)])


def _dangling(count: int) -> str:
    return document([START], [link(f"a{number}", f"b{number}") for number in range(count)])


def _into_one_input(count: int) -> str:
    values = [flows.value(id_, id_, value=1) for id_ in _ids(count)]
    return document(
        [START, END, *values], [link("start", "end"), *(flows.data(id_, "value", "end", "value") for id_ in _ids(count))]
    )


def _data_ring(count: int) -> str:
    ids = _ids(count)
    parts = [small(id_, "logic.expression", ("data_input", "expression", "default(n, 0) + 1")) for id_ in ids]
    links = [link("start", ids[0])]
    for a, b in zip(ids, [*ids[1:], ids[0]], strict=True):
        links += [link(a, b, "success"), flows.data(a, "result", b, "n")]
    return document([START, *parts], links)


def _growing(expression: str, first: Any) -> str:
    """A cycle that makes its value larger, round after round."""
    it = flows.component("it", "logic.expression", ports=[flows.port("data_input", "n", first)], expression=expression)
    kept = flows.value("kept", "kept", persistence="session")
    links = [link("start", "it"), link("it", "it", "success"), flows.data("it", "result", "it", "n")]
    return document([START, it, kept], [*links, flows.data("it", "result", "kept", "value")])


def _expressions(count: int, text: str) -> str:
    parts = [small(id_, "logic.expression", ("data_input", "expression", text)) for id_ in _ids(count)]
    return document([START, *parts], [link("start", id_) for id_ in _ids(count)])


def _switches(switches: int, cases: int, text: str) -> str:
    given = [{"route": f"r{number}", "when": text} for number in range(cases)]
    parts = [small(id_, "flow.switch", ("data_input", "cases", given)) for id_ in _ids(switches)]
    return document([START, *parts], [link("start", id_) for id_ in _ids(switches)])


def _scripts(count: int, source: str) -> str:
    parts = [small(id_, "logic.code", ("data_input", "code", source)) for id_ in _ids(count)]
    return document([START, *parts], [link("start", id_) for id_ in _ids(count)])


def _ports(components: int, ports: int) -> str:
    made = [("data_input", f"p{number}", number) for number in range(ports)]
    return document([START, *(small(id_, "logic.code", *made) for id_ in _ids(components))], [])


def _constant(value: str) -> str:
    """A constant that is passed on as the result."""
    kept = flows.value("kept", "kept", value="here")
    made = document([START, END, kept], [link("start", "end"), flows.data("kept", "value", "end", "value")])
    return made.replace('"here"', value)


def _constant_for_many(count: int, value: str) -> str:
    """One large constant that very many take."""
    parts = [small(id_, "logic.expression", ("data_input", "expression", "len(n)")) for id_ in _ids(count)]
    kept = flows.value("kept", "kept", value="here")
    links = [one for id_ in _ids(count) for one in (link("start", id_), flows.data("kept", "value", id_, "n"))]
    return document([START, kept, *parts], links).replace('"here"', value)


def _delays(count: int, seconds: Any) -> str:
    parts = [small(id_, "flow.delay", ("data_input", "seconds", seconds)) for id_ in _ids(count)]
    return document([START, *parts], [link("start", id_) for id_ in _ids(count)])


def _policy(policy: str) -> str:
    it = flows.component("it", "logic.code", code="raise ValueError", policy="here")
    return document([START, it], [link("start", "it")]).replace('"here"', policy)


def _everyone_to_one_join(count: int, mode: str) -> str:
    ids = _ids(count)
    parts = [small(id_, "logic.expression", ("data_input", "expression", "1")) for id_ in ids]
    join = small("join", "flow.join", ("data_input", "mode", mode))
    links = [one for id_ in ids for one in (link("start", id_), link(id_, "join", "success"))]
    return document([START, join, *parts], [*links, link("join", "start")])


def _doubling_tokens(count: int) -> str:
    """Each leads to the next twice."""
    ids = ["start", *_ids(count)]
    parts = [small(id_, "flow.join", ("data_input", "mode", "first")) for id_ in ids[1:]]
    links = [link(a, b, number=n) for a, b in itertools.pairwise(ids) for n in range(2)]
    return document([START, *parts], links)


def _tokens_without_end(count: int) -> str:
    ids = _ids(count)
    parts = [small(id_, "logic.expression", ("data_input", "expression", "1")) for id_ in ids]
    return document([START, *parts], [link("start", "c0"), *(link(a, b, "success") for a in ids for b in ids)])


LONG = "x" * 250
TEXTS: dict[str, Callable[[], str]] = {
    "2,000 starts": lambda: _starts(2_000),
    "2,001 components": lambda: _starts(2_001),
    "20,000 components": lambda: _starts(20_000),
    "2,000 that nobody reaches": lambda: _unreachable(1_999),
    "2,000 of unknown types": lambda: _unreachable(1_999, "no.such"),
    "2,000 of types with long names": lambda: _unreachable(1_999, LONG),
    "2,000 of one id": lambda: _same_ids(2_000),
    "a chain of 2,000": lambda: _chain(1_999),
    "a chain of 1,000 switches": lambda: _chain(1_000, "flow.switch"),
    "a dense graph of 80 joins": lambda: _dense(80),
    "a dense graph of 80 first joins": lambda: _dense(80, mode="first"),
    "a dense graph of 60 expressions": lambda: _dense(60, "logic.expression"),
    "layers of 30 joins of all": lambda: _layers(6, 30, "all"),
    "layers of 30 joins of the first": lambda: _layers(6, 30, "first"),
    "layers of 5 joins of the first": lambda: _layers(180, 5, "first"),
    "layers of 5 joins of all": lambda: _layers(180, 5, "all"),
    "5,000 connections between two": lambda: _many_between_two(5_000),
    "6,000 that lead from nowhere to nowhere": lambda: _dangling(6_000),
    "900 connections into one input": lambda: _into_one_input(900),
    "a ring of 1,000 values": lambda: _data_ring(1_000),
    "a ring of two values": lambda: _data_ring(2),
    "a text that doubles": lambda: _growing("n + n", "x"),
    "a text that doubles and stays": lambda: _growing("(n + n)[:500000]", "x"),
    "a list that doubles": lambda: _growing("n + n", [0]),
    "a list of two of itself": lambda: _growing("[n, n]", [0]),
    "an object of itself": lambda: _growing("{'a': n}", 0),
    "a number that squares": lambda: _growing("n * n", 3),
    "nulls that stay at their most": lambda: _growing("(n + n)[:200000]", [None]),
    "objects that stay at their most": lambda: _growing("(n + n)[:50000]", [{"a": None}]),
    "texts with controls that stay at their most": lambda: _growing("(n + n)[:170000]", "\x00"),
    "1,500 expressions": lambda: _expressions(1_500, "[x * y for x in range(300) for y in range(300)]"),
    "1,500 long expressions": lambda: _expressions(1_500, "1" + " + 1" * 100),
    "1,000 expressions with names that nobody has": lambda: _expressions(1_000, " + ".join(f"no{n}" for n in range(60))),
    "1,000 expressions that do not parse": lambda: _expressions(1_000, "(" * 400),
    "800 expressions of 1,000 characters": lambda: _expressions(800, "-" * 900 + "1"),
    "20 switches of 256 cases": lambda: _switches(20, 256, "sum(range(900)) < 0"),
    "30 switches of 256 cases that do not parse": lambda: _switches(30, 256, "((("),
    "a switch of 10,000 cases": lambda: _switches(1, 10_000, "False"),
    "1,000 scripts": lambda: _scripts(1_000, "x = 1"),
    "1,500 endless scripts": lambda: _scripts(1_500, "while True: pass"),
    "500 scripts that do not parse": lambda: _scripts(500, "def (" * 50),
    "a script of a million signs that does not parse": lambda: _scripts(1, "(" * 1_000_000),
    "one component of 256 ports": lambda: _ports(1, 256),
    "one component of 15,000 ports": lambda: _ports(1, 15_000),
    "60 components of 256 ports": lambda: _ports(60, 256),
    "a constant of nulls": lambda: _constant(repeated("null", bound=BOUND - 1_000)),
    "a constant of objects": lambda: _constant(repeated('{"a":{"b":[1]}}', bound=BOUND - 1_000)),
    "a constant of a million signs": lambda: _constant(json.dumps("x" * 1_040_000)),
    "a constant of one number": lambda: _constant("9" * 1_000_000),
    "a constant of exponents": lambda: _constant(repeated("1e15", bound=BOUND - 1_000)),
    "a constant of 24 levels": lambda: _constant(nested(24)),
    "a constant of 25 levels": lambda: _constant(nested(25)),
    "a constant of 400,000 levels": lambda: _constant(nested(400_000)),
    "a constant of keys": lambda: _constant(json.dumps({f"k{number}": number for number in range(60_000)})),
    "a large constant for 1,000": lambda: _constant_for_many(1_000, json.dumps("x" * 600_000)),
    "nulls for 1,000": lambda: _constant_for_many(1_000, repeated("null", bound=600_000)),
    "1,900 delays": lambda: _delays(1_900, 0.01),
    "1,900 long delays": lambda: _delays(1_900, 10**9),
    "delays of 10^400": lambda: _delays(10, 10**400),
    "delays of a list": lambda: _delays(100, [1] * 1_000),
    "a policy of a million tries": lambda: _policy('{"retry":{"maximum_attempts":1000000,"initial_interval":"0s"}}'),
    "a policy of very many tries": lambda: _policy('{"retry":{"maximumAttempts":999999999,"backoffCoefficient":0}}'),
    "a policy of long reasons": lambda: _policy(json.dumps({"retry": {"non_retryable_reasons": ["R" * 64] * 10_000}})),
    "a policy of huge numbers": lambda: _policy('{"retry":{"maximum_attempts":1e308,"backoff_coefficient":1e308}}'),
    "a policy of a long duration": lambda: _policy('{"timeout":"' + "9" * 900_000 + 's"}'),
    "a policy that is a list": lambda: _policy(repeated("{}", bound=500_000)),
    "900 into a join of all": lambda: _everyone_to_one_join(900, "all"),
    "900 into a join of the first": lambda: _everyone_to_one_join(900, "first"),
    "tokens that double": lambda: _doubling_tokens(60),
    "tokens without end": lambda: _tokens_without_end(60),
    "tokens without end among few": lambda: _tokens_without_end(3),
    "keys twice": lambda: '{"type":"workflow_definition",' + '"type":"workflow_definition",' * 30_000 + '"components":[]}',
    "components that are keys twice": lambda: '{"components":[' + ",".join(['{"id":1,"id":2}'] * 60_000) + "]}",
    "components that are numbers": lambda: '{"components":' + repeated("1", bound=900_000) + "}",
    "2,000 components that are numbers": lambda: '{"components":' + repeated("1", bound=4_000) + "}",
    "components inside components": lambda: '{"components":[' * 60_000,
    "half a million levels": lambda: nested(500_000),
    "objects of half a million levels": lambda: '{"a":' * 200_000,
    "a list": lambda: repeated("0"),
    "no JSON": lambda: "}" * BOUND,
    "nothing but blank": lambda: " " * BOUND,
    "a mark of the order of bytes": lambda: "\ufeff" + _chain(3),
    "a million unknown keys": lambda: "{" + ",".join(f'"k{number}":0' for number in range(80_000)) + "}",
    "keys of surrogates": lambda: '{"type":"workflow_definition","\\ud800":"\\udfff","components":[]}',
    "long names": lambda: document([small(LONG * 4_000, LONG * 40)], [link(LONG * 10, LONG * 10)]),
    "names with controls": lambda: document([small("\x00\x1b[2J" * 20, "flow.start")], [link("\x00", "\n")]),
    "paths that are long": lambda: document([small(LONG + str(number), "\n" * 250) for number in range(1_500)], []),
    "categories that there are not": lambda: document([small("a", "flow.start", *[("banana", "b", 1)] * 250)] * 60, []),
}
"""Documents of at most a mebibyte."""

CONTENTS: dict[str, Callable[[], bytes]] = {
    "700,000 components that are empty": lambda: field(3, b"") * 1_400_000,
    "2,000,000 connections that are empty": lambda: field(4, b"") * 2_000_000,
    "one component of a million ports": lambda: field(3, field(6, b"") * 2_000_000),
    "300,000 components of one id": lambda: field(3, field(1, b"a") + field(3, b"flow.end")) * 200_000,
    "100,000 connections": lambda: field(4, b"".join(field(number, b"abc") for number in range(1, 7))) * 130_000,
    "one id of four million": lambda: field(3, field(1, b"x" * 4_000_000)),
    "a million reasons": lambda: field(3, field(7, field(2, field(5, b"R") * 1_300_000))),
    "a million policies": lambda: field(3, field(7, b"") * 2_000_000),
    "policies that are merged": lambda: field(3, field(7, field(1, field(1, 9))) * 600_000),
    "positions that are none": lambda: field(3, field(5, field(1, float("nan")) + field(2, float("inf")))) * 150_000,
    "texts that are none": lambda: field(3, field(1, b"\xff\xfe") + field(3, b"\xed\xa0\x80")) * 200_000,
    "values as text": lambda: field(3, field(6, field(2, b"a") + field(4, b"[" * 1_000_000))) * 4,
    "negative durations": lambda: field(3, field(7, field(1, field(1, (1 << 64) - 1) + field(2, (1 << 64) - 5)))),
}
"""Definitions as protobuf, beyond a mebibyte."""


def members() -> Iterator[Member]:
    """Every document through all that takes documents, every message through all that takes messages."""
    for name, text in TEXTS.items():
        yield Member(kind="definition", name=name, content=text, attack=partial(_text, text))
    for name, content in CONTENTS.items():
        yield Member(kind="definition", name=f"{name}, as protobuf", content=content, attack=partial(_content, content))
    for name, attack in CROWDS.items():
        yield Member(kind="definition", name=name, content=partial(str, name), attack=attack)


async def _text(text: Callable[[], str], attacker: Attacker) -> None:
    made = text()
    await attacker.ask("CheckDefinition", revision=attacker.draft, document=made)
    await attacker.run(made, seconds=10)
    await attacker.ask("GetDefinition", definition=f"{attacker.draft}/hostile")
    await attacker.ask("CheckDefinition", revision=attacker.draft, definition="hostile")
    blob = await attacker.new_blob()
    if await attacker.ask("PutDefinition", revision=f"{blob}@draft", alias="hostile", document=made):
        await attacker.ask("CommitRevision", revision=f"{blob}@draft")
        await attacker.ask("GetDefinition", definition=f"{blob}@latest/hostile")
        await attacker.ask("CompareRevisions", base_revision=f"{blob}@latest", revision=f"{attacker.draft}")


async def _content(content: Callable[[], bytes], attacker: Attacker) -> None:
    made = field(4, content())
    await attacker.send("CheckDefinition", message("CheckDefinition", revision=attacker.draft) + made)
    if await attacker.send("PutDefinition", message("PutDefinition", revision=attacker.draft, alias="content") + made):
        await attacker.ask("GetDefinition", definition=f"{attacker.draft}/content")


async def _a_hundred_large(attacker: Attacker) -> None:
    """Commit and check a hundred definitions at once, each of them large and different."""
    blob = await attacker.new_blob()
    for number in range(100):
        text = _data_ring(500).replace("default(n, 0)", f"default(n, {number})")
        await attacker.ask("PutDefinition", revision=f"{blob}@draft", alias=f"d{number}", document=text)
    await attacker.ask("CommitRevision", revision=f"{blob}@draft")
    await attacker.ask("ListDefinitions", revision=f"{blob}@latest", page_size=1000)
    await attacker.ask("CreateRevision", blob=blob, base_revision=f"{blob}@latest")


async def _a_hundred_wrong(attacker: Attacker) -> None:
    """Commit a hundred definitions at once, each with hundreds of problems."""
    blob = await attacker.new_blob()
    for number in range(100):
        text = _unreachable(1_500, f"no.such{number}")
        await attacker.ask("PutDefinition", revision=f"{blob}@draft", alias=f"d{number}", document=text)
    await attacker.ask("CommitRevision", revision=f"{blob}@draft")


async def _checked_at_once(attacker: Attacker) -> None:
    """Check twenty large documents at once, all different."""
    texts = [_expressions(1_000, f"[x + {number} for x in range(3)]") for number in range(20)]
    await together(*(attacker.ask("CheckDefinition", revision=attacker.draft, document=text) for text in texts))


async def _put_at_once(attacker: Attacker) -> None:
    """Put fifty definitions into one draft at once."""
    text = _chain(1_500)
    blob = await attacker.new_blob()
    await together(
        *(attacker.ask("PutDefinition", revision=f"{blob}@draft", alias=f"d{n}", document=text) for n in range(50))
    )


CROWDS = {
    "a hundred large ones, committed": _a_hundred_large,
    "a hundred wrong ones, committed": _a_hundred_wrong,
    "twenty large ones, checked at once": _checked_at_once,
    "fifty, put at once": _put_at_once,
}
"""Many definitions at once."""
