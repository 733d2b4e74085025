"""Definitions that are written in Python: every one of the tests, the demo and the pages comes out as a person wrote it."""

from __future__ import annotations

import json
import keyword
import re
from pathlib import Path
from typing import Any

import pytest
from blobhub_client import building

ROOT = Path(__file__).resolve().parent.parent
OWN_NAMES = {name for name in dir(building.Component) if not name.startswith("_")}
"""Ports of these names are had by `port(name)`."""


def definitions() -> dict[str, Any]:
    """Every definition in the tree that is written down as JSON, by where it stands."""
    found = {}
    for path in (*ROOT.glob("tests/workflows/*.json"), *ROOT.glob("demo/*.json")):
        found[path.name] = json.loads(path.read_text())
    for path in (*ROOT.glob("docs/*.md"), *ROOT.glob("*.md"), *ROOT.glob("clients/*/README.md")):
        for number, text in enumerate(re.findall(r"```json\n(.*?)```", path.read_text(), re.S), 1):
            if '"components"' in text:
                found[f"{path.name} {number}"] = json.loads(text)
    return found


DEFINITIONS = definitions()


def program(definition: dict[str, Any]) -> str:
    """The Python program that a person would write for a definition: its lines are calls, and nothing else."""
    names = {each["id"]: f"c_{number}" for number, each in enumerate(definition["components"])}
    lines = ["flow = Workflow()"]
    for each in definition["components"]:
        line = f"{names[each['id']]} = {making(each)}"
        if scope := each.get("parent_id"):
            lines += [f"with {names[scope]}:", f"    {line}"]
        else:
            lines.append(line)
    control, data = 0, 0
    for each in definition["connections"]:
        source, target = names[each["source_id"]], names[each["target_id"]]
        if each["source_port"] == "flow_output":
            control += 1
            own_id = "" if each["id"] == f"c{control}" else f", id={each['id']!r}"
            lines.append(f"{source}{port(each['route'])}({target}{own_id})")
            continue
        data += 1
        output = f"{source}{port(each['source_port'])}"
        if each["id"] == f"d{data}" and each.get("route") == "" and is_name(each["target_port"]):
            lines.append(f"{target}.takes({each['target_port']}={output})")
        else:
            rest = f"{each['target_port']!r}, id={each['id']!r}, route={each.get('route')!r}"
            lines.append(f"{output}.to({target}, {rest})")
    return "\n".join(lines)


def making(component: dict[str, Any]) -> str:
    """The call that makes a component, and those that say more of it."""
    kind = ".".join(f"{part}_" if keyword.iskeyword(part) else part for part in component["type"].split("."))
    called = component["id"] == component["type"].rpartition(".")[2]
    line = f"flow.{kind}({'' if called else repr(component['id'])})"
    if "name" in component:
        line += f".titled({component['name']!r}, {component['position']['x']}, {component['position']['y']})"
    for each in component.get("ports", []):
        method = {"data_input": "inputs", "data_output": "outputs", "flow_output": "routes"}[each["category"]]
        given = f"**{ {each['route']: each['value']}!r}" if "value" in each else repr(each["route"])
        line += f".{method}({given})"
    return line + (f".policy(**{component['policy']!r})" if "policy" in component else "")


def is_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text)


def port(name: str) -> str:
    if name in OWN_NAMES or not name.isidentifier():
        return f".port({name!r})"
    return f".{name}_" if keyword.iskeyword(name) else f".{name}"


@pytest.mark.parametrize("where", DEFINITIONS)
def test_a_definition_of_the_tree_is_rebuilt_as_it_was_written(where: str) -> None:
    names = {"Workflow": building.Workflow}
    exec(program(DEFINITIONS[where]), names)
    assert names["flow"].plain() == DEFINITIONS[where]
    assert json.loads(names["flow"].document()) == DEFINITIONS[where]


def test_the_definitions_of_the_tree_are_found() -> None:
    pages = {where.split()[0] for where in DEFINITIONS}
    assert {"definitions.md", "all_or_again.json", "trip_saga.json", "document_summary.json"} <= pages


def test_a_program_that_a_person_writes_gives_the_json_that_a_person_writes() -> None:
    flow = building.Workflow()
    start = flow.flow.start()
    with flow.flow.try_("all").policy(retry={"maximum_attempts": 3}) as scope:
        price = flow.http.request("price", url=building.template("https://shop/{{ input.id }}")).inputs("headers")
        done = flow.flow.end("done", value=building.expression("steps.price.body"))
    end = flow.flow.end()
    start.next(scope).success(end)
    scope.body(price).success(done)
    scope.finally_(end)
    end.takes(value=scope.value)
    assert flow.plain() == {
        "type": "workflow_definition",
        "version": "1.0.1",
        "components": [
            {"id": "start", "type": "flow.start"},
            {"id": "all", "type": "flow.try", "policy": {"retry": {"maximum_attempts": 3}}},
            {
                "id": "price",
                "type": "http.request",
                "ports": [
                    given("url", {"type": "template", "template": "https://shop/{{ input.id }}"}),
                    {"category": "data_input", "route": "headers"},
                ],
                "parent_id": "all",
            },
            {
                "id": "done",
                "type": "flow.end",
                "ports": [given("value", {"type": "expression", "expression": "steps.price.body"})],
                "parent_id": "all",
            },
            {"id": "end", "type": "flow.end"},
        ],
        "connections": [
            control("c1", "start", "all", "next"),
            control("c2", "all", "end", "success"),
            control("c3", "all", "price", "body"),
            control("c4", "price", "done", "success"),
            control("c5", "all", "end", "finally"),
            {
                "id": "d1",
                "source_id": "all",
                "target_id": "end",
                "source_port": "value",
                "target_port": "value",
                "route": "",
            },
        ],
    }


def given(route: str, value: Any) -> dict[str, Any]:
    return {"category": "data_input", "route": route, "value": value}


def control(id_: str, source: str, target: str, route: str) -> dict[str, str]:
    ends = {"id": id_, "source_id": source, "target_id": target}
    return ends | {"source_port": "flow_output", "target_port": "flow_input", "route": route}


def test_two_components_of_one_id_are_refused() -> None:
    flow = building.Workflow()
    flow.flow.end()
    with pytest.raises(ValueError, match="id end"):
        flow.flow.end()


def test_what_python_itself_asks_for_is_no_port() -> None:
    """So copies and what looks at objects work as with any other one."""
    component = building.Workflow().flow.start()
    for each in (component, component._workflow, component._workflow.flow):
        assert not hasattr(each, "__deepcopy__")


def test_the_program_of_the_page_is_the_definition_of_the_other_page() -> None:
    (text,) = re.findall(
        r"```python\n(from blobhub_client.building.*?)```", (ROOT / "clients/python/README.md").read_text(), re.S
    )
    names: dict[str, Any] = {}
    exec(text, names)
    assert names["flow"].plain() == DEFINITIONS["definitions.md 2"]
