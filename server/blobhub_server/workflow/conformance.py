"""The test suite for component types, those of others above all.

A component's tests subclass `ComponentConformance` and say which type it is, with examples. pytest collects it; the fixtures
`blobhub_address` and `blobhub_admin_key` name a running server that has the component installed. What a component says of
itself and of values is tested in this process, and its examples in workflows that the server runs.
"""

from __future__ import annotations

import copy
import json
import re
import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import grpc
from blobhub.v1 import (
    component_pb2,
    component_pb2_grpc,
    definition_pb2,
    definition_pb2_grpc,
    execution_pb2,
    execution_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
)

from blobhub_server.blobtypes import json_field
from blobhub_server.blobtypes.conformance import Hub
from blobhub_server.workflow.components.contract import (
    CONTROL_IN,
    MAX_REASON,
    MAX_ROUTE,
    QUIET_ROUTES,
    Component,
    ComponentContext,
    ComponentError,
    ComponentKind,
    EffectComponent,
    Outcome,
    PureComponent,
    Services,
    require_result,
    start_nothing,
)
from blobhub_server.workflow.components.registry import GROUP, ComponentRegistry
from blobhub_server.workflow.definitions.document import (
    CATEGORIES,
    DATA_INPUT,
    DATA_OUTPUT,
    FLOW_INPUT,
    FLOW_OUTPUT,
    VERSION,
)
from blobhub_server.workflow.errors import TYPE

ODD_VALUES: Sequence[Any] = (
    *(None, True, 0, -1, 2**63, 1e308, "", "x" * 10_000, "\u0000é😀", [], [[]], {}, {"": None}),
    *({"type": "text"}, {"type": "no such type"}, {"type": "expression", "expression": 1}, [{"when": 1}, None]),
)
"""Values that anybody may set on any component."""
SUBJECT = "subject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Inputs of a component, and what comes of them: a route with outputs, or the reason of an error.

    Of the outputs those are compared that are named.
    """

    inputs: Mapping[str, Any] = field(default_factory=dict)
    route: str = "success"
    outputs: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


class ComponentConformance:
    """What every component promises."""

    component: ClassVar[str]
    """Its type."""
    examples: ClassVar[Sequence[Example]]
    """At least one that does not fail."""

    @property
    def subject(self) -> Component:
        """The installed component."""
        return _installed(self.component)

    def test_it_says_what_it_is(self) -> None:
        """Its type has a group and a name; a title, a description, and what each port is for are shown to users."""
        subject = self.subject
        assert re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+", subject.type)
        assert subject.title
        assert subject.description
        assert len({(port.category, port.route) for port in subject.ports}) == len(subject.ports), "a port is there twice"
        for port in subject.ports:
            assert port.category in CATEGORIES
            assert 0 < len(port.route) <= MAX_ROUTE
            assert port.description, port.route
            assert not port.required or port.category == DATA_INPUT, "only data is required"

    def test_it_is_run_in_place_or_after_a_commit(self) -> None:
        """Joins, values and scopes are the interpreter's own."""
        subject = self.subject
        assert isinstance(subject, PureComponent if subject.kind is ComponentKind.PURE else EffectComponent)
        assert subject.kind in (ComponentKind.PURE, ComponentKind.EFFECT)
        assert CONTROL_IN.route in self._ports(FLOW_INPUT), "control has no way in"

    def test_its_ports_and_routes_belong_together(self) -> None:
        """Each route that it declares has a port; what only takes a value, or is one of several, is a data input."""
        subject = self.subject
        assert subject.open_routes or {*subject.routes} == self._ports(FLOW_OUTPUT)
        inputs = self._ports(DATA_INPUT)
        assert {*subject.constants} <= inputs
        assert {name for group in subject.alternatives for name in group} <= inputs
        assert all(words for words in subject.needs.values())

    def test_its_checks_take_whatever_is_set_on_it(self) -> None:
        """A document may have any values: what is wrong with them is told, and nothing raised or changed."""
        names = [*self._ports(DATA_INPUT), *(["any-name"] if self.subject.open_ports else [])]
        given: list[dict[str, Any]] = [{}, *({name: value} for name in names for value in ODD_VALUES)]
        given += [dict.fromkeys(names, value) for value in ODD_VALUES] + [dict(each.inputs) for each in self.examples]
        for settings in given:
            before = copy.deepcopy(settings)
            self._require_checked(settings)
            assert settings == before

    def _require_checked(self, settings: dict[str, Any]) -> None:
        subject, inputs = self.subject, self._ports(DATA_INPUT)
        for name, message in subject.problems(settings):
            assert name in inputs or subject.open_ports, f"a problem is about {name!r}, which is no input"
            assert message
        told = {each.input for each in subject.expressions(settings)}
        told |= {each.input for each in subject.scripts(settings)} | {each.input for each in subject.slips(settings)}
        assert told <= settings.keys(), "what is told of is not set"
        for taken in subject.routes_taken(settings):
            assert 0 < len(taken.route) <= MAX_ROUTE
            assert taken.route in {*subject.routes, *QUIET_ROUTES} or subject.open_routes, taken.route
        outputs = subject.outputs_set(settings)
        assert outputs is None or outputs <= self._ports(DATA_OUTPUT) or subject.open_ports

    def test_its_examples_are_right_by_its_own_checks(self) -> None:
        """Nothing is wrong with values that work, and their routes and outputs are those that it says it has."""
        assert any(not each.reason for each in self.examples)
        for each in self.examples:
            if each.reason:
                assert re.fullmatch(r"[A-Z][A-Z0-9_]*", each.reason)
                assert len(each.reason) <= MAX_REASON
                continue
            assert self.subject.problems(each.inputs) == []
            assert each.route in {taken.route for taken in self.subject.routes_taken(each.inputs)} | QUIET_ROUTES
            outputs = self.subject.outputs_set(each.inputs)
            assert outputs is None or each.outputs.keys() <= outputs

    def test_in_place_it_is_a_function_of_its_inputs(self) -> None:
        """The same inputs give the same, whenever; they are left as they are, and what fails says why in words."""
        if not isinstance(self.subject, PureComponent):
            return
        inputs = self._ports(DATA_INPUT)
        odd = [dict(self.examples[0].inputs) | {name: value} for name in inputs for value in ODD_VALUES]
        for given in [*(dict(each.inputs) for each in self.examples), *odd]:
            before = copy.deepcopy(given)
            once, again = self._run(given), self._run(copy.deepcopy(given))
            assert once == again, "it is no function of its inputs"
            assert not isinstance(once, tuple) or all(once), "it does not say why it failed"
            assert given == before, "it changes its inputs"

    def _run(self, inputs: Mapping[str, Any]) -> object:
        """What a component that is evaluated in place comes to."""
        subject = self.subject
        assert isinstance(subject, PureComponent)
        missing = [p.route for p in subject.ports if p.required and p.category == DATA_INPUT and p.route not in inputs]
        if missing:
            return "it is not run without them", missing
        try:
            result = require_result(subject.run(inputs), inputs)
        except ComponentError as error:
            return error.reason, error.message
        if isinstance(result, Outcome):
            assert result.route in subject.routes or subject.open_routes, result.route
            assert {*result.outputs} <= self._ports(DATA_OUTPUT) or subject.open_ports
        return result

    @property
    def services(self) -> Services:
        """What it is given by the server, for runs in this process. Only for a component whose effects can be counted."""
        raise NotImplementedError

    async def count_effects(self, idempotency_key: str) -> int | None:
        """How often what it does outside has happened under a key; None where nothing is done, or it cannot be counted."""
        del idempotency_key
        return None

    async def test_another_attempt_with_the_same_key_does_nothing_twice(self) -> None:
        """When a server goes down under it, it is run again with the same key. It comes to the same then."""
        subject, key = self.subject, f"{uuid.uuid4()}/1"
        if not isinstance(subject, EffectComponent) or await self.count_effects(key) is None:
            return
        example = next(each for each in self.examples if not each.reason)
        for attempt in (1, 2):
            result = require_result(await subject.run(example.inputs, self._context(key, attempt)), example.inputs)
            assert not isinstance(result, Outcome) or result.route == example.route
            assert await self.count_effects(key) == 1

    def _context(self, key: str, attempt: int) -> ComponentContext:
        ids = {name: str(uuid.uuid4()) for name in ("organization_id", "blob_id", "session_id", "execution_id", "actor_id")}
        return ComponentContext(
            **ids,
            idempotency_key=key,
            attempt=attempt,
            emit_output=_pass,
            emit_bounded=_pass,
            print_text=_pass,
            services=self.services,
            start_child=start_nothing,
        )

    @asynccontextmanager
    async def _hub(self, address: str, key: str) -> AsyncIterator[Hub]:
        async with grpc.aio.insecure_channel(address) as channel:
            yield Hub(channel, key)

    async def test_the_server_lists_it(self, blobhub_address: str, blobhub_admin_key: str) -> None:
        """ListComponents shows it with its ports and routes."""
        async with self._hub(blobhub_address, blobhub_admin_key) as hub:
            stub = component_pb2_grpc.ComponentServiceStub(hub.channel)
            listed = await stub.ListComponents(component_pb2.ListComponentsRequest(), metadata=hub.metadata)
        (own,) = [each for each in listed.components if each.type == self.component]
        assert (own.title, len(own.ports)) == (self.subject.title, len(self.subject.ports))
        assert [*own.routes] == [*self.subject.routes]

    async def test_its_examples_run_in_workflows(self, blobhub_address: str, blobhub_admin_key: str) -> None:
        """Each is checked and run by the server, and comes to what it says, by its route and its outputs."""
        async with self._hub(blobhub_address, blobhub_admin_key) as hub:
            draft = f"{await hub.blob(TYPE)}@draft"
            sessions = session_pb2_grpc.SessionServiceStub(hub.channel)
            request = session_pb2.CreateSessionRequest(revision=draft)
            session = (await sessions.CreateSession(request, metadata=hub.metadata)).session.id
            for example in self.examples:
                await self._put(hub, draft, example)
                execution, route = await _run(hub, session)
                assert execution.failure.reason == example.reason, (example, execution.failure)
                if not example.reason:
                    assert route == example.route, example
                    assert json_field.read(execution, "result")[0] == dict(example.outputs), example

    async def _put(self, hub: Hub, draft: str, example: Example) -> None:
        """Put a definition whose result is the outputs of an example, after it was checked.

        What fails gets its inputs by connections: of values that are set on it, the check may already say what is wrong.
        """
        connected = {*example.inputs} - {*self.subject.constants} if example.reason else set()
        document = _document(self.component, example, connected)
        definitions = definition_pb2_grpc.DefinitionServiceStub(hub.channel)
        check = definition_pb2.CheckDefinitionRequest(revision=draft, document=document)
        checked = await definitions.CheckDefinition(check, metadata=hub.metadata)
        assert checked.runnable, (example, checked.problems)
        put = definition_pb2.PutDefinitionRequest(revision=draft, alias=SUBJECT, document=document)
        await definitions.PutDefinition(put, metadata=hub.metadata)

    def _ports(self, category: str) -> set[str]:
        return {port.route for port in self.subject.ports if port.category == category}


@cache
def _installed(type_: str) -> Component:
    """A component. It is looked up once: what is installed does not change while tests run."""
    found = ComponentRegistry.load().get(type_)
    assert found is not None, f"no entry point of the group {GROUP} is named {type_}"
    return found


def _pass(_: object) -> None:
    """Take what a component says, and drop it."""


def _document(type_: str, example: Example, connected: Collection[str]) -> str:
    """Start, the component with its inputs, end: the result is an object of its outputs."""
    outputs = ", ".join(f"{name!r}: steps[{SUBJECT!r}][{name!r}]" for name in example.outputs)
    result = {"type": "expression", "expression": f"{{{outputs}}}"}
    components = [
        {"id": "start", "type": "flow.start"},
        {"id": SUBJECT, "type": type_, "ports": _values(example.inputs, without=connected)},
        {"id": "end", "type": "flow.end", "ports": _values({"value": result})},
    ]
    connections = [
        _connection("start", SUBJECT, FLOW_OUTPUT, FLOW_INPUT, "next"),
        _connection(SUBJECT, "end", FLOW_OUTPUT, FLOW_INPUT, example.route),
    ]
    for name in connected:
        own = {"alias": name, "persistence": "definition", "value": example.inputs[name]}
        components.append({"id": f"value-{name}", "type": "data.value", "ports": _values(own)})
        connections.append(_connection(f"value-{name}", SUBJECT, "value", name))
    made = {"type": "workflow_definition", "version": VERSION, "components": components, "connections": connections}
    return json.dumps(made)


def _values(given: Mapping[str, Any], without: Collection[str] = ()) -> list[dict[str, Any]]:
    return [{"category": DATA_INPUT, "route": name, "value": value} for name, value in given.items() if name not in without]


def _connection(source: str, target: str, source_port: str, target_port: str, route: str = "") -> dict[str, str]:
    return {
        "id": f"{source}-{target}",
        "source_id": source,
        "target_id": target,
        "source_port": source_port,
        "target_port": target_port,
        "route": route,
    }


async def _run(hub: Hub, session: str) -> tuple[execution_pb2.Execution, str]:
    """Run the definition; the execution as it ended, and the route that the component has taken."""
    spec = execution_pb2.ExecutionSpec(definition=SUBJECT)
    request = execution_pb2.RunExecutionRequest(session=session, spec=spec)
    execution, route = execution_pb2.Execution(), ""
    async for answer in execution_pb2_grpc.ExecutionServiceStub(hub.channel).RunExecution(request, metadata=hub.metadata):
        execution = answer.execution if answer.HasField("execution") else execution
        for event in answer.events:
            if event.type == "processor.exited" and event.processor.processor_id == SUBJECT:
                route = event.processor_exited.route
    return execution, route
