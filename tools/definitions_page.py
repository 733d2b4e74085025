"""The parts of `docs/definitions.md` that are made from the code and the contract: components, problems and reasons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from blobhub_server.workflow import reasons
from blobhub_server.workflow.components.contract import Component, PortSpec
from blobhub_server.workflow.components.registry import ComponentRegistry
from google.protobuf import descriptor_pb2
from reference import files, prose

PAGE = Path(__file__).resolve().parent.parent / "docs" / "definitions.md"
SHIPPED = "blobhub_server."
"""What the modules of the components that come with the server begin with."""


def page(image: Path) -> str:
    """The page with those parts as they should be; all else in it is as it stands."""
    text = PAGE.read_text()
    for name, part in (("components", _components()), ("problems", _problems(image)), ("reasons", _reasons())):
        head, begin, rest = text.partition(f"<!-- {name}: made by `make generate` -->")
        _, end, tail = rest.partition(f"<!-- end of {name} -->")
        text = f"{head}{begin}\n{part}{end}{tail}"
    return text


def _components() -> str:
    shipped = [item for item in ComponentRegistry.load() if type(item).__module__.startswith(SHIPPED)]
    return "".join(_component(item) for item in sorted(shipped, key=lambda item: item.type))


def _component(component: Component) -> str:
    routes = ", ".join(f"`{route}`" for route in component.routes) or "none"
    more = " and others that the definition names" if component.open_routes else ""
    takes = "\nFurther data inputs and outputs may have any name.\n" if component.open_ports else ""
    ports = [
        (f"`{port.route}`", port.category, _type(port), "yes" if port.required else "", prose(port.description))
        for port in component.ports
    ]
    table = _table(("port", "category", "type", "required", "what for"), ports)
    return f"\n### `{component.type}`\n\n{component.description}\n\nRoutes: {routes}{more}.\n{takes}\n{table}"


def _type(port: PortSpec) -> str:
    return "" if port.category.startswith("flow") else port.value_type or "any"


def _problems(image: Path) -> str:
    """The types of problem, as their comments in definition.proto say."""
    return "\n" + _table(("problem", "what it says"), _values(image, "DefinitionProblemType"))


def _values(image: Path, enum: str) -> list[tuple[str, str]]:
    """The values of an enum of the contract but the unspecified one, each with its comment."""
    return [
        (f"`{value.name.removeprefix(_prefix(found))}`", prose(file.comments[5, number, 2, place]))
        for file in files(image)
        for number, found in enumerate(file.proto.enum_type)
        if found.name == enum
        for place, value in enumerate(found.value)
        if place
    ]


def _prefix(enum: descriptor_pb2.EnumDescriptorProto) -> str:
    return enum.value[0].name.removesuffix("UNSPECIFIED")


def _reasons() -> str:
    tables = (
        ("reason of an execution", reasons.OF_EXECUTIONS),
        ("reason of a component", reasons.OF_COMPONENTS),
        ("reason of `task.call`", reasons.OF_TASKS),
        ("reason of `workflow.execute`", reasons.OF_CHILDREN),
        ("reason of `model.infer`", reasons.OF_MODELS),
        ("reason of `http.request` and `genai.chat.openai`", reasons.OF_HTTP),
        ("reason of `genai.chat.openai`", reasons.OF_CHATS),
    )
    return "".join("\n" + _table((title, "cause"), _rows(causes)) for title, causes in tables)


def _rows(causes: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(f"`{reason}`", cause) for reason, cause in causes.items()]


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
