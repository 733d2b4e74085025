"""Small workflow definitions for tests."""

from __future__ import annotations

import itertools
import json
from typing import Any


def port(category: str, route: str, value: Any = None) -> dict[str, Any]:
    made = {"category": category, "route": route}
    return made if value is None else made | {"value": value}


def component(
    id_: str, type_: str, /, *, ports: list[dict[str, Any]] = (), policy: Any = None, **values: Any
) -> dict[str, Any]:
    """A component; keyword values become its data inputs."""
    made: dict[str, Any] = {
        "id": id_,
        "category": type_.split(".", maxsplit=1)[0],
        "type": type_,
        "name": id_,
        "position": {"x": 0, "y": 0},
        "ports": [*ports, *(port("data_input", name, value) for name, value in values.items())],
    }
    return made | ({"policy": policy} if policy else {})


def control(source: str, target: str, route: str = "next") -> dict[str, Any]:
    return {
        "id": f"{source}-{route}-{target}",
        "source_id": source,
        "target_id": target,
        "source_port": "flow_output",
        "target_port": "flow_input",
        "route": route,
    }


def data(source: str, source_port: str, target: str, target_port: str) -> dict[str, Any]:
    return {
        "id": f"{source}.{source_port}-{target}.{target_port}",
        "source_id": source,
        "target_id": target,
        "source_port": source_port,
        "target_port": target_port,
        "route": "",
    }


def document(components: list[dict[str, Any]], connections: list[dict[str, Any]]) -> str:
    return json.dumps(
        {
            "type": "workflow_definition",
            "version": "1.0.1",
            "components": components,
            "connections": connections,
        }
    )


def value(id_: str, alias: str, *, persistence: str = "definition", value: Any = None) -> dict[str, Any]:
    """A `data.value` component."""
    ports = [port("data_input", "alias", alias), port("data_input", "persistence", persistence)]
    return component(id_, "data.value", ports=[*ports, port("data_output", "value", value)])


def steps(count: int = 3) -> str:
    """Start, `count` expressions in a row, end: all evaluated in place. The result counts them."""
    names = [f"add-{i}" for i in range(count)]
    components = [component("start", "flow.start")]
    connections = [control("start", names[0])]
    for i, name in enumerate(names):
        components.append(component(name, "logic.expression", expression="n + 1", **({} if i else {"n": 0})))
        if i:
            connections += [control(names[i - 1], name, "success"), data(names[i - 1], "result", name, "n")]
    components.append(component("end", "flow.end"))
    connections += [control(names[-1], "end", "success"), data(names[-1], "result", "end", "value")]
    return document(components, connections)


def rounds(count: int, *, expression: str = "n + 1", begin: Any = 0, until: str = "", wait: float = 0.0) -> str:
    """Start, an expression of `n` that is evaluated again and again, `count` times unless told `until`; then wait, end.

    The result is the last `n`.
    """
    again = [{"route": "again", "when": f"not ({until})" if until else f"n < {count}"}]
    return document(
        [
            component("start", "flow.start"),
            value("n", "n", persistence="execution", value=begin),
            component("step", "logic.expression", expression=expression),
            component("more", "flow.switch", cases=again),
            component("wait", "flow.delay", seconds=wait),
            component("end", "flow.end"),
        ],
        [
            control("start", "step"),
            data("n", "value", "step", "n"),
            data("step", "result", "n", "value"),
            control("step", "more", "success"),
            data("n", "value", "more", "n"),
            control("more", "step", "again"),
            control("more", "wait", "default"),
            control("wait", "end"),
            data("n", "value", "end", "value"),
        ],
    )


def delay(seconds: float) -> str:
    """Start, wait, end."""
    return document(
        [
            component("start", "flow.start"),
            component("wait", "flow.delay", seconds=seconds),
            component("end", "flow.end"),
        ],
        [control("start", "wait"), control("wait", "end")],
    )


def code(source: str, *, policy: Any = None) -> str:
    """Start, one script, end; the script's output `result` is the execution's result, its input `given` an input."""
    script = component("script", "logic.code", policy=policy, code=source)
    return document(
        [
            component("start", "flow.start"),
            value("given", "given", persistence="execution", value=0),
            script,
            component("end", "flow.end"),
        ],
        [
            control("start", "script"),
            data("given", "value", "script", "given"),
            control("script", "end", "success"),
            data("script", "result", "end", "value"),
        ],
    )


def scripts(count: int = 3) -> str:
    """Start, `count` scripts in a row, end: five steps for three scripts, each script a step with a commit of its own."""
    names = [f"script-{i}" for i in range(count)]
    components = [component("start", "flow.start"), component("end", "flow.end")]
    components += [component(name, "logic.code", code="set_result('success')") for name in names]
    connections = [control("start", names[0])]
    connections += [control(a, b, "success") for a, b in itertools.pairwise(names)]
    connections.append(control(names[-1], "end", "success"))
    return document(components, connections)


MIXED = document(
    [
        component("start", "flow.start"),
        component("count", "logic.expression", expression="1 + 1"),
        component(
            "work",
            "logic.code",
            code="n = 0\nfor i in range(20000):\n    n += i\nset_data_output('result', n)\nset_result('success')",
        ),
        component("wait", "flow.delay", seconds=0.15),
        component("join", "flow.join", mode="all"),
        component("again", "logic.code", code="set_data_output('result', 'done')\nset_result('success')"),
        component("end", "flow.end"),
    ],
    [
        control("start", "count"),
        control("count", "work", "success"),
        control("count", "wait", "success"),
        control("work", "join", "success"),
        control("wait", "join"),
        control("join", "again"),
        control("again", "end", "success"),
        data("again", "result", "end", "value"),
    ],
)
"""Steps evaluated in place, scripts, a wait and a join."""
