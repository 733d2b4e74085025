"""Definitions of workflows, written in Python: components are calls, routes are methods.

    flow = Workflow()
    price = flow.data.value("price", alias="price", persistence="execution")
    start = flow.flow.start()
    discount = flow.logic.expression("discount", expression="price * 0.9")
    end = flow.flow.end()
    start.next(discount).success(end)
    discount.takes(price=price.value)
    end.takes(value=discount.result)
    flow.document()

What comes out is the JSON that a person would write: nothing is added but ids, of control connections `c1`, `c2` …, of data
connections `d1`, `d2` …. Nothing is checked either, which is for `CheckDefinition`.
"""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Self

FORMAT, VERSION = "workflow_definition", "1.0.1"


def expression(text: str) -> dict[str, str]:
    """The value of an input that is computed when its component gets control."""
    return {"type": "expression", "expression": text}


def template(text: str) -> dict[str, str]:
    """The value of an input that is a text with expressions in it, in `{{ … }}`."""
    return {"type": "template", "template": text}


class Workflow:
    """A definition. Its attributes lead to types of components: `flow.logic.code("split", code=…)`."""

    def __init__(self) -> None:
        self._components: list[Component] = []
        self._control: list[dict[str, Any]] = []
        self._data: list[dict[str, Any]] = []
        self._scopes: list[Component] = []

    def __getattr__(self, name: str) -> Type:
        return Type(self, _public(name))

    def component(self, type_: str, id_: str = "", /, **inputs: Any) -> Component:
        """A component of a type by its name. Raises ValueError for an id that is there already."""
        made = Component(self, type_, id_ or type_.rpartition(".")[2], self._scopes[-1] if self._scopes else None)
        if any(str(made) == str(each) for each in self._components):
            raise ValueError(f"there are two components with the id {made}")
        self._components.append(made)
        return made.inputs(**inputs) if inputs else made

    def plain(self) -> dict[str, Any]:
        """The document as a value."""
        components = [each._plain() for each in self._components]
        return {"type": FORMAT, "version": VERSION, "components": components, "connections": self._control + self._data}

    def document(self) -> str:
        """The document as JSON text."""
        return json.dumps(self.plain(), ensure_ascii=False, indent=2)


class Type:
    """The name of a type of components, or its beginning. A name that Python keeps for itself ends in `_`: `flow.try_`."""

    def __init__(self, workflow: Workflow, name: str) -> None:
        self._workflow, self._name = workflow, name

    def __getattr__(self, name: str) -> Type:
        return Type(self._workflow, f"{self._name}.{_public(name)}")

    def __call__(self, id_: str = "", /, **inputs: Any) -> Component:
        """A component of this type, called as the type is unless an id is given; `inputs` are values of its data inputs."""
        return self._workflow.component(self._name, id_, **inputs)


class Component:
    """A component. Its attributes are its ports: a route in `split.success(size)`, an output in `size.takes(x=split.text)`.

    In `with scope:` components are made inside of it. A port that is called as a method here is had by `port(name)`.
    """

    def __init__(self, workflow: Workflow, type_: str, id_: str, scope: Component | None) -> None:
        self._workflow, self._type, self._id, self._scope = workflow, type_, id_, scope
        self._title: dict[str, Any] = {}
        self._ports: list[dict[str, Any]] = []
        self._policy: dict[str, Any] | None = None

    def __getattr__(self, name: str) -> Port:
        return self.port(_public(name))

    def port(self, name: str) -> Port:
        """A route or an output by its name."""
        return Port(self, name)

    def inputs(self, *names: str, **values: Any) -> Self:
        """Data inputs: those that are only connected by their names, others with their values."""
        return self._add("data_input", names, values)

    def outputs(self, *names: str, **values: Any) -> Self:
        """Data outputs, which need not be listed."""
        return self._add("data_output", names, values)

    def routes(self, *names: str) -> Self:
        """Routes, which need not be listed."""
        return self._add("flow_output", names, {})

    def policy(self, **policy: Any) -> Self:
        """How it is tried: `timeout="10s", retry={"maximum_attempts": 3}`."""
        self._policy = policy
        return self

    def titled(self, name: str, x: float = 0, y: float = 0) -> Self:
        """What people and editors see: its name and where it stands."""
        self._title = {"name": name, "position": {"x": x, "y": y}}
        return self

    def takes(self, **sources: Port) -> Self:
        """Connect outputs to its data inputs."""
        for name, source in sources.items():
            source.to(self, name)
        return self

    def __enter__(self) -> Self:
        self._workflow._scopes.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._workflow._scopes.pop()

    def __str__(self) -> str:
        return self._id

    def _add(self, category: str, names: tuple[str, ...], values: dict[str, Any]) -> Self:
        self._ports += [{"category": category, "route": name} for name in names]
        self._ports += [{"category": category, "route": name, "value": value} for name, value in values.items()]
        return self

    def _plain(self) -> dict[str, Any]:
        made: dict[str, Any] = {"id": self._id}
        if self._title:
            made["category"] = self._type.partition(".")[0]
        made |= {"type": self._type} | self._title
        if self._ports or self._title:
            made["ports"] = self._ports
        if self._policy is not None:
            made["policy"] = self._policy
        if self._scope is not None:
            made["parent_id"] = str(self._scope)
        return made


class Port:
    """A route or an output of a component; where it is used says which."""

    def __init__(self, component: Component, name: str) -> None:
        self._component, self._name = component, name

    def __call__(self, *targets: Component, id: str = "") -> Component:
        """Go on by this route with each of the targets, the last of which is answered."""
        connections = self._component._workflow._control
        for target in targets:
            ends = self._ends(id or f"c{len(connections) + 1}", target, "flow_output", "flow_input")
            connections.append(ends | {"route": self._name})
        return targets[-1]

    def to(self, target: Component, port: str, *, id: str = "", route: str | None = "") -> None:
        """Connect this output to a data input; without a `route` if that is None."""
        connections = self._component._workflow._data
        ends = self._ends(id or f"d{len(connections) + 1}", target, self._name, port)
        connections.append(ends if route is None else ends | {"route": route})

    def _ends(self, id_: str, target: Component, source_port: str, target_port: str) -> dict[str, Any]:
        source = str(self._component)
        return {
            "id": id_,
            "source_id": source,
            "target_id": str(target),
            "source_port": source_port,
            "target_port": target_port,
        }


def _public(name: str) -> str:
    """The name behind an attribute. Raises AttributeError for one that Python itself asks for."""
    if name.startswith("_"):
        raise AttributeError(name)
    return name.removesuffix("_")
