"""Definitions as large as they may be, in shapes that each make one part of reading, checking or compiling do most."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


def _document(components: Iterable[Mapping[str, Any]], connections: Iterable[Mapping[str, Any]] = (), more: str = "") -> str:
    content = {"type": "workflow_definition", "components": list(components), "connections": list(connections)}
    return json.dumps(content, separators=(",", ":"))[:-1] + more + "}"


def _component(id_: str, type_: str, **values: Any) -> dict[str, Any]:
    ports = [{"category": "data_input", "route": route, "value": value} for route, value in values.items()]
    return {"id": id_, "type": type_, "ports": ports}


def _control(number: int, source: str, target: str) -> dict[str, str]:
    ends = {"source_id": source, "target_id": target}
    return {"id": f"{number}", **ends, "source_port": "flow_output", "target_port": "flow_input", "route": "next"}


def _data(number: int, target: str) -> dict[str, str]:
    ends = {"source_id": "0", "target_id": target}
    return {"id": f"{number}", **ends, "source_port": "result", "target_port": f"x{number}"}


def _many(count: int, type_: str, **values: Any) -> list[dict[str, Any]]:
    return [_component(f"{number}", type_, **values) for number in range(count)]


START = _component("start", "flow.start")
NAMES = "+".join("abcdefghij"[number % 10] for number in range(500))


def _script(number: int, text: str, count: int) -> dict[str, Any]:
    return _component(f"{number}", "logic.code", code=f"# {number}\n{text * count}")


LARGE = {
    "one component leads to all": _document(
        [START, *_many(1_900, "flow.end")], [_control(number, "start", f"{number % 1_900}") for number in range(7_900)]
    ),
    "all are fed by one": _document(
        [START, *_many(1_000, "logic.expression", expression="1")],
        [_data(number, f"{number % 1_000}") for number in range(7_900)],
    ),
    "one is fed by all": _document(
        [START, *_many(1, "logic.expression", expression="1")], [_data(number, "0") for number in range(10_000)]
    ),
    "many cases": _document(
        [START, *_many(50, "flow.switch", cases=[{"route": f"r{n}", "when": "not " * 12 + "n"} for n in range(95)], n=True)]
    ),
    "names that nobody provides": _document([START, *_many(260, "logic.expression", expression=NAMES)]),
    "many scripts": _document([START, *(_script(number, "set_result('a');", 60) for number in range(450))]),
    "long scripts": _document([START, *(_script(number, "set_result('a')\n", 8_000) for number in range(4))]),
    "scripts of errors": _document([START, *(_script(number, "set_result $", 10_900) for number in range(4))]),
    "many ports": _document(
        [START, *(component | {"ports": [{"category": "data_input", "route": f"{n}"} for n in range(250)]}
         for component in _many(39, "flow.end"))]
    ),
    "a long list": _document([START, _component("0", "data.value", value=[0] * 500_000)]),
    "many lists": _document([START, _component("0", "data.value", value=[[[]]] * 170_000)]),
    "many unknown keys": _document([START], more="," + ",".join(f'"k{number}":0' for number in range(90_000))),
    "many keys twice": _document([START], more=',"a":[' + ",".join(['{"a":1,"a":1}'] * 70_000) + "]"),
    "many brackets": "[" * 1_000_000,
}  # fmt: skip
"""By what they are many of. Those of errors can be put all the same, but for the last two."""
