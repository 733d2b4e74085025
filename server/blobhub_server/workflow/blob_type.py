"""The workflow blob type: what `blobhub.compute.workflow` is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from blobhub.v1.workflow_error_pb2 import WorkflowErrorReason

from blobhub_server.background import in_background
from blobhub_server.blobtypes.capabilities import Invocable
from blobhub_server.blobtypes.contract import BlobType, Check, Content, Given, Host, Limit, Opened, Service
from blobhub_server.blobtypes.values import Dependents
from blobhub_server.config import Settings
from blobhub_server.db.engine import Transaction
from blobhub_server.db.notify import Doorbell
from blobhub_server.db.parts import remove_in_order
from blobhub_server.errors import Violation
from blobhub_server.http.outbound.outbound import Outbound
from blobhub_server.start import StartError
from blobhub_server.workflow.children import ChildStarts
from blobhub_server.workflow.code.contract import ScriptError
from blobhub_server.workflow.code.monty import MontyRunner
from blobhub_server.workflow.components.contract import Services
from blobhub_server.workflow.components.registry import ComponentRegistry
from blobhub_server.workflow.definitions.finder import Definitions
from blobhub_server.workflow.definitions.process import examining
from blobhub_server.workflow.errors import TYPE
from blobhub_server.workflow.invocations import Invocations
from blobhub_server.workflow.log.log import EventLog
from blobhub_server.workflow.log.session_events import SessionEvents
from blobhub_server.workflow.rules import limit
from blobhub_server.workflow.runtime.contract import Runtime
from blobhub_server.workflow.runtime.embedded.kin import cut_off
from blobhub_server.workflow.runtime.embedded.runtime import EmbeddedRuntime
from blobhub_server.workflow.runtime.inbox import Inbox
from blobhub_server.workflow.runtime.retention import SignalRetention
from blobhub_server.workflow.runtime.signals import Signals
from blobhub_server.workflow.secrets import ActorSecrets
from blobhub_server.workflow.services.component import ComponentService
from blobhub_server.workflow.services.definition import DefinitionService, locate_definition
from blobhub_server.workflow.services.execution import ExecutionService, locate_execution
from blobhub_server.workflow.services.session import SessionService, locate_session
from blobhub_server.workflow.services.session_object import SessionObjectService
from blobhub_server.workflow.services.signal import SignalService
from blobhub_server.workflow.services.task import TaskService, locate_lease
from blobhub_server.workflow.settings import WorkflowSettings
from blobhub_server.workflow.store import MIGRATIONS, TABLES, execution_use
from blobhub_server.workflow.store import child as child_store
from blobhub_server.workflow.store import event as event_store
from blobhub_server.workflow.store import execution as execution_store
from blobhub_server.workflow.store import log_size as log_size_store
from blobhub_server.workflow.store import message as message_store
from blobhub_server.workflow.store import session as session_store
from blobhub_server.workflow.store import session_object as object_store
from blobhub_server.workflow.store import signal as signal_store
from blobhub_server.workflow.store import task as task_store
from blobhub_server.workflow.store import wait as wait_store
from blobhub_server.workflow.tasks.ending import Ending
from blobhub_server.workflow.tasks.leasing import Leasing
from blobhub_server.workflow.tasks.upkeep import removing_ended

LOGS = Limit(
    name=limit.LOG_BYTES,
    description="Bytes of the logs of all sessions of the organization",
    default=16 << 30,
    held=log_size_store.get,
)
TASKS = Limit(
    name=limit.OPEN_TASKS,
    description="Tasks of the organization that no worker has ended",
    default=10_000,
    held=task_store.count_open,
)
SESSIONS_AT_ONCE = 100
"""How many sessions a statement looks at in a collection: some hold nothing of what it removes, and it passes over them."""


class WorkflowType(BlobType):
    """Definitions that run: sessions, executions, event streams."""

    name = TYPE
    title = "Workflow"
    description = (
        "Stores workflow definitions, documents of components and the connections between them, and runs them in "
        "sessions: durably, with every step an event that can be watched."
    )

    offers = (Invocable,)
    settings = WorkflowSettings
    reasons = WorkflowErrorReason.DESCRIPTOR
    tables = TABLES
    migrations = MIGRATIONS

    def __init__(self) -> None:
        self._components = ComponentRegistry.load()
        self.wants = self._components.needs
        self._definitions: Definitions

    def checks(self, settings: Settings, given: Given) -> list[Check]:
        """A check that scripts run."""
        return [Check("script workers", partial(_look_at_script_workers, given[WorkflowSettings]))]

    @asynccontextmanager
    async def open(self, host: Host, given: Given) -> AsyncIterator[Opened]:
        """Start the script workers and the runtime. What ran before is recovered once the server answers calls."""
        settings = given[WorkflowSettings]
        log = EventLog(host.db, host.bell)
        events = SessionEvents(host, log)
        capabilities: dict[object, object] = {
            kind: offered for kind in self.wants if (offered := given.find(kind)) is not None
        }
        components = self._components.match_offers(capabilities)
        async with _script_workers(settings) as scripts, examining(components.lacking) as examiner:
            definitions = self._definitions = Definitions(host.db, host.contents, components, scripts, examiner)
            services = Services(
                scripts=scripts,
                outside=Outbound(settings.allowance),
                secrets=ActorSecrets(host),
                capabilities=capabilities,
            )
            make_children = partial(ChildStarts, host, definitions)
            runtime = EmbeddedRuntime(host, definitions, services, log, settings.lease_seconds, make_children)
            inbox, retention = Inbox(host, events), SignalRetention(host)
            async with (
                in_background(retention.remove_forever(), "retention of signals"),
                runtime.running(),
                task_services(host) as tasks,
            ):
                yield Opened(
                    services=[*self._services(host, definitions, runtime, log, events), tasks],
                    locators={
                        "definition": partial(locate_definition, host),
                        "session": partial(locate_session, host),
                        "execution": partial(locate_execution, host),
                        "lease": locate_lease,
                    },
                    dependents=_dependents,
                    in_use=_in_use,
                    collect=partial(_collect, host.bell),
                    limits=_limits(host),
                    organization_limits=[LOGS, TASKS],
                    offers={Invocable: Invocations(host, definitions, runtime, inbox)},
                    on_serving=partial(_begin, (runtime, retention)),
                    objects_in_use=execution_use.find_running_definitions,
                )

    def _services(
        self, host: Host, definitions: Definitions, runtime: Runtime, log: EventLog, events: SessionEvents
    ) -> list[Service]:
        inbox = Inbox(host, events)
        return [
            Service("blobhub.v1.DefinitionService", DefinitionService(host, definitions)),
            Service("blobhub.v1.ComponentService", ComponentService(self._components)),
            Service("blobhub.v1.SessionService", SessionService(host, inbox, log)),
            Service("blobhub.v1.SessionObjectService", SessionObjectService(host, events)),
            Service("blobhub.v1.ExecutionService", ExecutionService(host, runtime, inbox, log)),
            Service("blobhub.v1.SignalService", SignalService(host, Signals(host, inbox))),
        ]

    async def validate(self, content: Content) -> list[Violation]:
        """There must be a definition, and every definition must be runnable. The type is open."""
        entries = await content.list()
        if not entries:
            return [Violation("definitions", "a workflow needs at least one definition")]
        found = []
        for entry in entries:
            # Read also where it is compiled already: a commit of what has been lost is refused.
            verdict = await self._definitions.check(await content.read(entry), content.party)
            for violation in verdict.violations:
                path = f"definitions[{entry.name}].{violation.field}".rstrip(".")
                found.append(Violation(path, violation.message))
        return found


def _begin(parts: Sequence[EmbeddedRuntime | SignalRetention]) -> None:
    """Tell parts that the server answers calls by now."""
    for part in parts:
        part.on_serving()


@asynccontextmanager
async def task_services(host: Host) -> AsyncIterator[Service]:
    """The service of tasks, and what works beside it."""
    ending = Ending(host)
    leasing = Leasing(host, ending)
    async with removing_ended(host):
        try:
            yield Service("blobhub.v1.TaskService", TaskService(host, leasing, ending))
        finally:
            await leasing.close()
            await ending.close()


def _script_workers(settings: WorkflowSettings) -> MontyRunner:
    return MontyRunner(workers=settings.code_workers, seconds=settings.code_seconds, memory_mib=settings.code_memory_mib)


def _ignore(_: object) -> None:
    """Drop what a script says."""


async def _look_at_script_workers(settings: WorkflowSettings) -> str:
    """Have a script add two numbers."""
    async with _script_workers(settings) as scripts:
        try:
            result = await scripts.run("set_data_output('sum', 1 + 1)", {}, emit=_ignore, write=_ignore)
        except ScriptError as error:
            raise StartError(
                f"a short script failed: {error.message}; see BLOBHUB_CODE_SECONDS and BLOBHUB_CODE_MEMORY_MIB"
            ) from None
    if result.outputs != {"sum": 2}:
        raise StartError(f"a script says that 1 + 1 is {result.outputs.get('sum')}; install pydantic-monty anew")
    return f"a script ran in one of {settings.code_workers}, in {settings.code_seconds:g} s at most"


def _limits(host: Host) -> list[Limit]:
    """How much a workflow may hold."""
    return [
        Limit(name=limit.DEFINITIONS, description="Definitions in a revision", default=100, held=host.contents.fullest),
        Limit(
            name=limit.CHILDREN,
            description="Executions that have not ended, of those that the steps of one execution have started",
            default=1_000,
            held=child_store.most,
        ),
        Limit(
            name=limit.DEPTH,
            description="Executions above one that a step has started: the one of the step, and so on",
            default=16,
            held=child_store.deepest,
        ),
        Limit(
            name=limit.EXECUTIONS,
            description="Executions started in a session",
            default=100_000,
            held=session_store.most_executions,
        ),
        Limit(
            name=limit.SESSIONS,
            description="Sessions of the blob that are not closed",
            default=10_000,
            held=session_store.count_open,
        ),
        Limit(
            name=limit.SIGNALS,
            description="Signals that are kept because nobody waits for them yet",
            default=10_000,
            held=signal_store.count,
        ),
        Limit(
            name=limit.SIGNAL_BYTES,
            description="Bytes of the signals that are kept because nobody waits for them yet",
            default=64 << 20,
            held=signal_store.count_bytes,
        ),
    ]


async def _dependents(tx: Transaction, revision_id: str) -> Sequence[Dependents]:
    """What depends on a revision of a workflow."""
    return [
        await session_store.dependents_on_revision(tx, revision_id),
        await execution_use.dependents_on_revision(tx, revision_id),
    ]


async def _in_use(tx: Transaction, blob_id: str) -> Sequence[Dependents]:
    """What runs in a workflow."""
    return [await session_store.dependents_in_blob(tx, blob_id), await execution_use.dependents_in_blob(tx, blob_id)]


async def _collect(bell: Doorbell, tx: Transaction, blob_ids: Sequence[str], rows: int) -> int:
    """Remove rows of deleted workflows: so many at most; return how many. Sessions go before kept signals."""
    removed = 0
    while removed < rows and (session_ids := await session_store.lock_some(tx, blob_ids, SESSIONS_AT_ONCE)):
        stores = (event_store, object_store, session_store)
        own = partial(_collect_executions, bell, tx, session_ids)
        steps = [own, *(partial(each.collect, tx, session_ids) for each in stores)]
        removed += await remove_in_order(steps, rows - removed)
    return removed + (await signal_store.collect(tx, blob_ids, rows - removed) if removed < rows else 0)


async def _collect_executions(bell: Doorbell, tx: Transaction, session_ids: Sequence[str], rows: int) -> int:
    """Remove executions of sessions with their tasks, waits and messages: so many rows at most; return how many."""
    removed = 0
    while removed < rows and (execution_ids := await execution_store.lock_some(tx, session_ids, rows - removed)):
        await cut_off(tx, bell, execution_ids)
        stores = (message_store, task_store, wait_store, execution_store)
        steps = [partial(each.collect, tx, execution_ids) for each in stores]
        removed += await remove_in_order(steps, rows - removed)
    return removed
