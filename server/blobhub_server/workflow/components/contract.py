"""The contract of a component type, on one page.

A component type is a class in the entry-point group `blobhub.components`, named after the type. There are three kinds:

* `PURE`: `run` is a function of its inputs, evaluated in place; nothing outside changes, so it needs no commit.
* `TASK`: evaluated in place as well, to an await of a worker's task, and again for each further attempt.
* `EFFECT`: `run` is awaited after the commit that says it was entered. When the server goes down meanwhile, it is run
  again with the same idempotency key and a higher attempt.

Either gives an outcome, or an await (`components/awaits.py`): what the step waits for. Waiting survives restarts.

Inputs are the component's data inputs by name: each the latest value from its connection, else the port's own value;
names without either are absent. Values are JSON, plain or value objects; `values.unwrap` gives what is inside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar, cast

from blobhub_server.blobtypes import json_text
from blobhub_server.blobtypes.expressions import Fuel
from blobhub_server.errors import InvalidValue
from blobhub_server.http.outbound.message import Outside
from blobhub_server.workflow.code.contract import ScriptRunner
from blobhub_server.workflow.components.awaits import Await
from blobhub_server.workflow.components.child import Child
from blobhub_server.workflow.components.outside import Secrets

MAX_ROUTE = 256
"""How many characters a route has at most, and what a step says that it waits for; a definition's have no more either."""

EXECUTE = "workflow.execute"
"""The type of the component that starts other executions."""

MAX_REASON = 64
"""How many characters the reason of an error has at most; what is longer is cut."""

QUIET_ROUTES = frozenset({"success", "next", "failure"})
"""Routes that need no connection: the first two end their branch without one, and the last the execution."""

Inputs = Mapping[str, Any]
Thing = TypeVar("Thing")
Capability = type
"""A protocol that a blob type offers an object of (`blobtypes/capabilities.py`)."""


class ComponentKind(Enum):
    """How a component is run."""

    PURE = "pure"
    EFFECT = "effect"
    JOIN = "join"
    """`flow.join`: the interpreter itself counts its tokens."""
    DATA = "data"
    """`data.value`: takes no control."""
    SCOPE = "scope"
    """Contains other components, which the interpreter runs (`components/scopes.py`)."""
    TASK = "task"
    """Evaluated in place, to an await of what is done elsewhere; failed attempts are tried again, as the policy says."""


TRIED_AGAIN = frozenset({ComponentKind.EFFECT, ComponentKind.TASK})
"""The kinds whose failed attempts are tried again as the component's policy says."""


@dataclass(frozen=True, slots=True)
class PortSpec:
    """A port that a component type declares. `value_type` is "" for any JSON value."""

    category: str
    route: str
    description: str
    value_type: str = ""
    required: bool = False


CONTROL_IN = PortSpec(category="flow_input", route="in", description="Control enters here.")
"""The port of every component that takes control, whichever way it came."""
SUCCESS = PortSpec(category="flow_output", route="success", description="Control leaves here.")
FAILURE = PortSpec(
    category="flow_output", route="failure", description="Control leaves here when it has failed, if this is connected."
)
ERROR = PortSpec(
    category="data_output",
    route="error",
    description=(
        "Why it has failed, when control leaves by `failure`: an object with `reason`, `message`, `component_id`, `line`, "
        "`attempt` and `details`."
    ),
)
"""The data output of every component with the route `failure`, whether its type declares it or not."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a component ended: the route that control takes, and values of its data outputs.

    `terminal` ends the whole execution as completed. `work` is how much a pure component has computed, in units of about a
    microsecond (`blobtypes/expressions/fuel.py`); others have their turn the sooner. `bounded` says that the outputs
    are known to be plain JSON within the bounds of a value, so nobody looks at them again.
    """

    route: str
    outputs: Mapping[str, Any] = field(default_factory=dict)
    terminal: bool = False
    work: int = field(default=0, compare=False)
    bounded: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class ExpressionSetting:
    """An expression in a component's settings: the data input whose value it is in, and where in it, such as `[0].when`.

    `decides` is true where its value must be True or False.
    """

    input: str
    text: str
    within: str = ""
    decides: bool = False


@dataclass(frozen=True, slots=True)
class ScriptSetting:
    """A script in a component's settings: the data input whose value it is."""

    input: str
    text: str


@dataclass(frozen=True, slots=True)
class RouteSetting:
    """A route that a component may take, as far as its settings say: which input's value names it, and where in it.

    `within` is as in ExpressionSetting; `line` and `column`, from 1, are places in a script. One `with_input` is only taken
    where the input has a value, or a connection.
    """

    route: str
    input: str = ""
    within: str = ""
    line: int = 0
    column: int = 0
    with_input: bool = False


@dataclass(frozen=True, slots=True)
class Slip:
    """What is probably a slip in a value set on a component: in which input's value, where in it, and in words.

    `within` is as in ExpressionSetting. `unknown_key` is a key there that means nothing. Without one what is there is never
    taken.
    """

    message: str
    input: str
    within: str
    unknown_key: str | None = None


class ComponentError(Exception):
    """A component failed. `reason` is an upper-case word, `line` one of the user's script, from 1.

    `retryable` says whether trying again can help; the component's policy decides whether it is tried. `details` is JSON of
    at most 16 KiB for programs; more than that is left out. `retry_after` is how many seconds the next attempt is to
    wait at least, as far as the policy's longest wait goes. `work` is as in Outcome.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "COMPONENT_ERROR",
        line: int | None = None,
        retryable: bool = True,
        details: Any = None,
        retry_after: float = 0.0,
        work: int = 0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.line = line
        self.retryable = retryable
        self.details = details
        self.retry_after = retry_after
        self.work = work


def require_result(result: object, inputs: Inputs) -> Outcome | Await:
    """What a component gave for its inputs, if it is one of the things it may give. Raises ComponentError.

    Outputs come back as plain JSON, within the bounds of a value, and all else that events show is short.
    """
    if not isinstance(result, Outcome | Await):
        raise ComponentError("the component gave neither an outcome nor an await", reason="INTERNAL", retryable=False)
    shown = [result.route] if isinstance(result, Outcome) else [result.expiry, *map(str, result.details.values())]
    for text in shown:
        if len(text) > MAX_ROUTE:
            message = f"a route, and what is waited for, has at most {MAX_ROUTE} characters, not {len(text)}"
            raise ComponentError(message, reason="INVALID_OUTPUT", retryable=False)
    if isinstance(result, Await) or result.bounded or not result.outputs:
        return result
    return replace(result, outputs={name: require_json(name, value, inputs) for name, value in result.outputs.items()})


def require_json(name: str, value: Any, inputs: Inputs) -> Any:
    """An output as plain JSON. Raises ComponentError when it is not JSON, or beyond the bounds of a value."""
    # A value that is passed on was within its bounds where it came in or was made.
    if value is None or isinstance(value, bool) or any(value is given for given in inputs.values()):
        return value
    try:
        text = json_text.encode(f"the output {name!r}", value)
    except InvalidValue as error:
        raise ComponentError(str(error), reason="INVALID_OUTPUT", retryable=False) from None
    return json_text.load(text) if isinstance(value, dict | list | tuple) else value


@dataclass(frozen=True, slots=True)
class Services:
    """What the server offers to effect components. Where one needs the server's storage, it waits for that."""

    scripts: ScriptRunner
    outside: Outside
    """The one way to ask other servers."""
    secrets: Secrets
    capabilities: Mapping[object, object] = field(default_factory=dict)
    """What blob types offer, by capability: those that components need and somebody offers."""

    def capability(self, kind: Callable[..., Thing]) -> Thing:
        """What a blob type offers. Raises ComponentError where none does."""
        if kind not in self.capabilities:
            message = "no blob type that is installed now offers what it needs; the check of its definition says what"
            raise ComponentError(message, reason="CAPABILITY_MISSING", retryable=False)
        return cast(Thing, self.capabilities[kind])


async def start_nothing(child: Child) -> Await:
    """Start no execution, where nothing does. Raises ComponentError."""
    message = f"nothing starts {child.definition} here"
    raise ComponentError(message, reason="CAPABILITY_MISSING", retryable=False)


@dataclass(frozen=True, slots=True)
class ComponentContext:
    """What an effect component gets beside its inputs. `idempotency_key` is the same for all attempts at one step.

    `actor_id` is on whose behalf the execution was started (`Caller.actor_id`): what a component does for it, it does with
    the rights that the actor has then.

    `emit_output` shows watchers a value before the component ends, `print_text` a text that is for people.
    `emit_bounded` emits what is known to be plain JSON within the bounds of a value, so nobody looks at it again.
    `start_child` starts an execution, once however often this attempt is run, and gives the await of its end.
    """

    organization_id: str
    blob_id: str
    session_id: str
    execution_id: str
    actor_id: str
    idempotency_key: str
    attempt: int
    emit_output: Callable[[Any], None]
    emit_bounded: Callable[[Any], None]
    print_text: Callable[[str], None]
    services: Services
    start_child: Callable[[Child], Awaitable[Await]] = start_nothing


class Component(ABC):
    """A component type. The class docstring's first paragraph describes it to users."""

    type: ClassVar[str]
    title: ClassVar[str]
    kind: ClassVar[ComponentKind]
    ports: ClassVar[tuple[PortSpec, ...]] = ()
    routes: ClassVar[tuple[str, ...]] = ()
    constants: ClassVar[tuple[str, ...]] = ()
    """Data inputs that only take a value of their own, and no connection."""
    alternatives: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Groups of data inputs, of each of which one has to have a value or a connection."""
    open_ports: ClassVar[bool] = False
    """True when further data inputs and outputs than the declared ones are accepted."""
    open_routes: ClassVar[bool] = False
    """True when a definition may name further routes."""
    needs: ClassVar[Mapping[Capability, str]] = MappingProxyType({})
    """The capabilities of blob types that it needs, each in words. Where no installed type offers one, the check says so."""

    @property
    def category(self) -> str:
        """The group: what stands before the dot of the type."""
        return self.type.partition(".")[0]

    @property
    def may_fail_by_route(self) -> bool:
        """Whether control may leave it by `failure`, which gives the output `error` a value."""
        return self.open_routes or "failure" in self.routes

    @property
    def description(self) -> str:
        """What it does, and when it fails."""
        return " ".join((type(self).__doc__ or "").split())

    def problems(self, settings: Inputs) -> list[tuple[str, str]]:
        """What is wrong with the values set on the component: (data input, message) for each."""
        del settings
        return []

    def expressions(self, settings: Inputs) -> list[ExpressionSetting]:
        """The expressions in the values set on the component, each over the data inputs that its type does not declare."""
        del settings
        return []

    def scripts(self, settings: Inputs) -> list[ScriptSetting]:
        """The scripts in the values set on the component."""
        del settings
        return []

    def routes_taken(self, settings: Inputs) -> list[RouteSetting]:
        """The routes, known from the values set on the component, that it may take; `QUIET_ROUTES` may be left out."""
        del settings
        return [RouteSetting(route=route) for route in self.routes]

    def slips(self, settings: Inputs) -> list[Slip]:
        """What is probably a slip in the values set on the component, and keeps it from nothing."""
        del settings
        return []

    def outputs_set(self, settings: Inputs) -> frozenset[str] | None:
        """The data outputs that it can give a value, as far as the values set on it say; None when it may be any."""
        del settings
        declared = frozenset(port.route for port in self.ports if port.category == "data_output")
        return None if self.open_ports else declared


class PureComponent(Component):
    """Evaluated in place."""

    kind = ComponentKind.PURE

    @abstractmethod
    def run(self, inputs: Inputs) -> Outcome | Await:
        """The outcome, or what is waited for. Raises ComponentError."""


@dataclass(frozen=True, slots=True)
class ExpressionContext:
    """What expressions of a component get beside its inputs.

    `names` is data of the execution, by the names that references begin with (`definitions/references.py`); a data input of
    the same name comes first. `fuel` is what is left of the work that one activation may do.
    """

    names: Mapping[str, Any]
    fuel: Fuel


class ExpressionComponent(PureComponent):
    """Evaluated in place, with expressions in its settings that may refer to data of the execution."""

    def run(self, inputs: Inputs) -> Outcome | Await:
        """Run without such data."""
        return self.run_in(inputs, None)

    @abstractmethod
    def run_in(self, inputs: Inputs, context: ExpressionContext | None) -> Outcome | Await:
        """The outcome, or what is waited for; with all of the fuel where there is no context. Raises ComponentError."""


class TaskComponent(PureComponent):
    """Says in place what others are to do, and waits for that."""

    kind = ComponentKind.TASK


class EffectComponent(Component):
    """Run after a commit."""

    kind = ComponentKind.EFFECT
    repeatable: ClassVar[bool] = False
    """True when a run changes nothing outside. Where such a component reads and writes values of the session, and another
    execution came first, it is run again on what is there now."""

    @abstractmethod
    async def run(self, inputs: Inputs, context: ComponentContext) -> Outcome | Await:
        """The outcome, or what is waited for. Raises ComponentError."""
