"""Components that run other definitions."""

from __future__ import annotations

from typing import Any

from blobhub_server.blobtypes.reference import is_alias, names_revision
from blobhub_server.errors import BlobHubError
from blobhub_server.ids import canonical_id
from blobhub_server.workflow.components.awaits import Await
from blobhub_server.workflow.components.child import Child
from blobhub_server.workflow.components.contract import (
    CONTROL_IN,
    ERROR,
    EXECUTE,
    FAILURE,
    SUCCESS,
    ComponentContext,
    ComponentError,
    EffectComponent,
    Inputs,
    PortSpec,
)
from blobhub_server.workflow.components.spans import timeout_of, timeout_problems
from blobhub_server.workflow.values import unwrap


class Execute(EffectComponent):
    """Starts an execution of a definition, once, and waits until it has ended; its result is the step's. The definition may
    be of the same revision, of another, or of another blob, which whoever started this execution must be able to write to.
    Fails with the reason that the other has failed with, with `CHILD_STOPPED` when somebody has stopped it, and with
    `TIMEOUT` when it takes too long. When the step ends in another way, or the execution, what it has started is stopped.
    """

    type = EXECUTE
    title = "Execute"
    ports = (
        CONTROL_IN,
        SUCCESS,
        FAILURE,
        PortSpec(
            category="data_input",
            route="definition",
            description=(
                "The alias of a definition in the same revision, or a reference such as `acme/pipeline@3/refund`; "
                "`acme/pipeline/refund` is that of the default revision, whichever that is when it is started."
            ),
            value_type="text",
            required=True,
        ),
        PortSpec(
            category="data_input",
            route="input",
            description="Object of the values that it is given, by alias.",
            value_type="json",
        ),
        PortSpec(
            category="data_input",
            route="session",
            description=(
                "The alias of the session to run it in, which is opened where its revision has none. Unless it is set, "
                "one of the same blob runs in the session of this execution, and any other in a session of its own."
            ),
            value_type="text",
        ),
        PortSpec(
            category="data_input",
            route="timeout",
            description="After how many seconds of waiting the step fails, and what it has started is stopped.",
            value_type="float",
        ),
        PortSpec(category="data_output", route="result", description="The result; without a value where there was none."),
        PortSpec(category="data_output", route="execution_id", description="The id of the execution that was started."),
        ERROR,
    )
    routes = ("success", "failure")

    async def run(self, inputs: Inputs, context: ComponentContext) -> Await:
        """Start it, unless an earlier run of this attempt has, and wait."""
        settings = {name: unwrap(value) for name, value in inputs.items()}
        for name, message in _problems(settings):
            raise ComponentError(f"`{name}` {message}", reason="INVALID_INPUT", retryable=False)
        child = Child(
            definition=settings["definition"],
            inputs=settings.get("input") or {},
            session=settings.get("session", ""),
            timeout=timeout_of(settings),
        )
        try:
            return await context.start_child(child)
        except BlobHubError as error:
            may_pass = error.retry_after_seconds is not None
            raise ComponentError(error.message, reason=error.reason, retryable=may_pass) from None

    def problems(self, settings: Inputs) -> list[tuple[str, str]]:
        """A reference must be one, what is given an object, and a timeout a span."""
        return _problems({name: unwrap(value) for name, value in settings.items()})


def _problems(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with plain values, by data input."""
    found = []
    definition, session = settings.get("definition"), settings.get("session")
    if "definition" in settings and not (isinstance(definition, str) and _names_definition(definition)):
        found.append(("definition", "must be the alias of a definition, or a reference such as acme/pipeline@3/refund"))
    if settings.get("input") is not None and not isinstance(settings["input"], dict):
        found.append(("input", "must be an object of values by alias"))
    if "session" in settings and not (isinstance(session, str) and is_alias(session)):
        found.append(("session", "must be the alias of a session: 1 to 63 characters of a-z, 0-9, - and _"))
    return found + timeout_problems(settings)


def _names_definition(text: str) -> bool:
    """Whether a text is the alias or id of a definition, or refers to one in a revision."""
    revision, slash, alias = text.rpartition("/")
    if slash and not names_revision(revision):
        return False
    return is_alias(alias) or bool(canonical_id(alias))
