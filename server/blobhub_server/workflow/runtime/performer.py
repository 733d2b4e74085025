"""Runs components. The completion of a run is the next happening of its execution."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from blobhub_server.errors import BlobHubError, Overloaded, is_panic
from blobhub_server.scarcity import is_scarcity
from blobhub_server.workflow.components.awaits import Await
from blobhub_server.workflow.components.child import Child
from blobhub_server.workflow.components.contract import (
    ComponentContext,
    ComponentError,
    EffectComponent,
    Outcome,
    Services,
    require_json,
    require_result,
)
from blobhub_server.workflow.definitions.graph import Graph
from blobhub_server.workflow.interpreter import Completion, RunStep, StepOutput
from blobhub_server.workflow.rules.child import Origin
from blobhub_server.workflow.rules.execution import Execution
from blobhub_server.workflow.runtime.contract import Children, IsOpen

log = structlog.get_logger()


class Performer:
    """Runs components, and gives them the server's services."""

    def __init__(self, services: Services, children: Children | None = None) -> None:
        self._services = services
        self._children = children

    async def run(
        self, graph: Graph, execution: Execution, step: RunStep, tell: Callable[[StepOutput], None], is_open: IsOpen
    ) -> Completion:
        """Run one attempt at a step; return its completion. `tell` gets the outputs that it emits before.

        `is_open` says of the execution's locked row whether this is still waited for.
        """

        async def start_child(child: Child) -> Await:
            assert self._children is not None, "the runtime was made with something that starts them"
            origin = Origin(execution_id=execution.id, step=step.step, failures=step.failures)
            return await self._children.start(child, execution, origin, is_open)

        context = ComponentContext(
            organization_id=execution.organization_id,
            blob_id=execution.blob_id,
            session_id=execution.session_id,
            execution_id=execution.id,
            actor_id=execution.actor_id,
            idempotency_key=f"{execution.id}/{step.step}",
            attempt=step.attempt,
            emit_output=lambda value: tell(StepOutput(step=step.step, value=require_json("emitted", value, step.inputs))),
            emit_bounded=lambda value: tell(StepOutput(step=step.step, value=value)),
            print_text=lambda text: tell(StepOutput(step=step.step, printed=text)),
            services=self._services,
            start_child=start_child,
        )
        started = time.monotonic()
        result = await _result(graph, step, context)
        elapsed = 0.0 if isinstance(result, ComponentError) else time.monotonic() - started
        return Completion(step=step.step, attempt=step.attempt, result=result, elapsed=elapsed)


async def _result(graph: Graph, step: RunStep, context: ComponentContext) -> Outcome | Await | ComponentError:
    """The result of a component, or the error that it fails with; never raises."""
    component = graph.components[step.component_id].implementation
    assert isinstance(component, EffectComponent), "others are evaluated in place"
    try:
        async with asyncio.timeout(step.timeout):
            return require_result(await component.run(step.inputs, context), step.inputs)
    except TimeoutError:
        return ComponentError(f"took longer than {step.timeout:g} s", reason="TIMEOUT")
    except ComponentError as error:
        return error
    except BlobHubError as error:
        # The component's own, also where it is of the storage: it reaches none but by the services, which wait for ours.
        return ComponentError(error.message, reason=error.reason)
    except BaseException as error:
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        if is_scarcity(error):
            log.warning("system_has_nothing_to_give", component=component.type, error=str(error))
            scarce = Overloaded()
            return ComponentError(scarce.message, reason=scarce.reason)
        log.exception("component_failed", component=component.type, execution_id=context.execution_id)
        return ComponentError("the component failed unexpectedly", reason="INTERNAL")
