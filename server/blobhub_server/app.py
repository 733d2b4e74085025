"""The composition root: the whole server, put together from top to bottom. It alone knows every part."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import structlog

from blobhub_server import logs, memory
from blobhub_server.background import in_background
from blobhub_server.blobtypes.contract import ForeignService, Opened, Service
from blobhub_server.blobtypes.distinct import require_distinct
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.clock import utc_now
from blobhub_server.config import Settings
from blobhub_server.db.engine import Database
from blobhub_server.db.migrations import migrate
from blobhub_server.db.notify import Doorbell
from blobhub_server.db.opening import open_database
from blobhub_server.descriptors import with_room
from blobhub_server.garbage import ShortCollections
from blobhub_server.http.port import HttpPort, listening
from blobhub_server.http.probes import Probes
from blobhub_server.http.transfer import Transfers
from blobhub_server.ids import Uuid7
from blobhub_server.objects.contract import ObjectStore
from blobhub_server.objects.grant import Signer
from blobhub_server.objects.local import LocalObjects
from blobhub_server.objects.opening import open_objects
from blobhub_server.platform.admission.gate import TOPIC
from blobhub_server.platform.assembly import Ground, Platform
from blobhub_server.platform.bootstrap import bootstrap
from blobhub_server.platform.rules.reference import KINDS
from blobhub_server.platform.sealing.keyring import load
from blobhub_server.platform.sealing.rotation import adopt
from blobhub_server.rpc.access_options import AccessRule, check_resources, rules, table_rules
from blobhub_server.rpc.comments import OURS, Comments
from blobhub_server.rpc.guard import Guard
from blobhub_server.rpc.handlers import generic_handler
from blobhub_server.rpc.pipeline import Pipeline
from blobhub_server.rpc.port import ORDINARY, PortBounds
from blobhub_server.rpc.reflection import add_reflection
from blobhub_server.rpc.server import Health, Port, Ports, bind, make_server
from blobhub_server.rpc.tls import TlsFiles
from blobhub_server.rpc.validation import compile_constraints
from blobhub_server.scarcity import work_in_threads
from blobhub_server.start import NothingToServe

log = structlog.get_logger()

SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter from others who want it."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A running server: its addresses, and the administrator's key if this was the first start."""

    address: str
    http_address: str
    inference_address: str | None
    admin_key: str | None


@asynccontextmanager
async def running(
    settings: Settings, types: BlobTypes, show_key: Callable[[str], None] = lambda _: None
) -> AsyncIterator[RunningServer]:
    """Start a server; leave to shut it down gracefully. Raises StartError, StorageUnavailable, OSError when it cannot start.

    `show_key` gets the administrator's key at the first start, before that is made.
    """
    logs.set_up(settings)
    work_in_threads()
    settings = with_room(settings)
    log.info("starting", version=version("blobhub-server"), database=settings.url.partition(":")[0])
    async with AsyncExitStack() as stack:
        ground, signer = await _ground(stack, settings, types)

        # The platform, and the blob types on it
        platform = Platform(ground)
        stack.push_async_callback(platform.audit.close)
        platform.host.drain.on_start(ground.bell.wake_all)
        given = settings.admin_key.get_secret_value() if settings.admin_key else None
        admin_key = await bootstrap(ground.db, platform.audit, ground.clock, ground.ids, ground.entropy, given, show_key)
        await stack.enter_async_context(types.running(platform.host))

        # Admission and serving
        brought = {"the platform": platform.opened(), **types.opened()}
        require_distinct(brought)
        pipelines = await stack.enter_async_context(_pipelines(platform, brought))
        services = [service for opened in brought.values() for service in opened.services]
        tls = TlsFiles.from_settings(settings)
        port = _open_port(settings, pipelines, services, tls, Comments([OURS, *types.descriptors()]))
        inference = _open_inference_port(settings, pipelines, brought.values(), tls)
        ports = Ports([port, inference] if inference else [port])
        http = await stack.enter_async_context(_http(platform, signer, pipelines.ordinary, ports, tls))
        await ports.start()
        watching = ground.db.trouble.watch(partial(_probe, ground.db, ground.objects), ports.set_ready)
        await stack.enter_async_context(in_background(watching, "trouble"))
        stack.push_async_callback(ports.shut_down, platform.host.drain, settings.drain_seconds, http.shut_down)
        await stack.enter_async_context(in_background(platform.collector.collect_forever(), "collector"))
        await stack.enter_async_context(in_background(platform.object_collector.collect_forever(), "object collector"))
        await stack.enter_async_context(in_background(memory.trim_forever(), "memory"))
        await stack.enter_async_context(platform.operation_runner.running())
        types.on_serving()  # Last: what is left from before may be long, or end this server too.
        yield RunningServer(
            address=port.address,
            http_address=http.address,
            inference_address=inference.address if inference else None,
            admin_key=admin_key,
        )


async def _ground(stack: AsyncExitStack, settings: Settings, types: BlobTypes) -> tuple[Ground, Signer]:
    """Open the storage, which is closed with the stack; what signs presigned URLs beside it."""
    ids, entropy = Uuid7(), os.urandom
    server_id = ids()
    db = await open_database(settings.url, application_name=server_id)
    stack.push_async_callback(db.close)
    await migrate(settings.url, types.chains())
    keyring = load(settings, entropy)
    await adopt(db, keyring)
    signer = Signer(keyring.derive_keys(b"transfers"), keyring.current)
    objects = open_objects(settings, signer)
    await objects.sweep()
    bell = Doorbell(db)
    await stack.enter_async_context(bell.hearing())
    ground = Ground(
        server_id=server_id,
        settings=settings,
        types=types,
        db=db,
        bell=bell,
        objects=objects,
        keyring=keyring,
        clock=utc_now,
        ids=ids,
        entropy=entropy,
    )
    return ground, signer


async def _probe(db: Database, objects: ObjectStore) -> None:
    """Write to the database and to the object store. Raises StorageUnavailable."""
    await db.probe()
    await objects.probe()


@dataclass(frozen=True, slots=True)
class _Pipelines:
    """What calls go through, by the port that they come to; there may be none for large messages."""

    ordinary: Pipeline
    large: Pipeline | None


@asynccontextmanager
async def _pipelines(platform: Platform, brought: Mapping[str, Opened]) -> AsyncIterator[_Pipelines]:
    """What every call goes through, for all services that were brought."""
    host, settings = platform.host, platform.host.settings
    kinds = {kind: locator for opened in brought.values() for kind, locator in opened.locators.items()}
    access = _access(service for opened in brought.values() for service in opened.services)
    check_resources(access, kinds, KINDS)
    compile_constraints(rule.request for rule in access.values())
    async with platform.gate(access, kinds) as gate, AsyncExitStack() as stack:

        async def make(bounds: PortBounds, beside: Pipeline | None = None) -> Pipeline:
            seconds = settings.max_unread_seconds
            guard = Guard(host.bell, host.clock, TOPIC, max_unread_seconds=seconds, bounds=bounds)
            await stack.enter_async_context(guard.watching())
            return Pipeline(gate, guard, host.db.trouble, settings, bounds=bounds, beside=beside)

        ordinary, large = await make(ORDINARY), None
        if settings.inference_listen is not None:
            large = await make(PortBounds.for_large_messages(settings.inference_message_mib << 20), ordinary)
        yield _Pipelines(ordinary=ordinary, large=large)


@asynccontextmanager
async def _http(
    platform: Platform, signer: Signer, pipeline: Pipeline, ports: Ports, tls: TlsFiles | None
) -> AsyncIterator[HttpPort]:
    """The HTTP port, to which what is signed leads. Objects in the cloud are transferred there."""
    host, settings = platform.host, platform.host.settings
    routes = Probes(lambda: ports.ready, [pipeline.counts]).routes()
    if isinstance(host.objects, LocalObjects):
        idle_seconds = settings.max_unread_seconds
        transfers = Transfers(
            host.objects,
            signer,
            platform.may_act,
            host.clock,
            host.ids,
            idle_seconds=idle_seconds,
            on_trouble=host.db.trouble.report,
        )
        routes += transfers.routes()
    async with listening(routes, settings, tls.context() if tls else None) as port:
        signer.base_url = settings.http_url or port.url
        yield port


def _access(services: Iterable[Service]) -> dict[str, AccessRule]:
    """What each method needs, by its path. Raises MissingAccess."""
    found: dict[str, AccessRule] = {}
    for service in services:
        if isinstance(service, ForeignService):
            found.update(table_rules(service.full_name, service.access))
        else:
            found.update(rules([service.full_name]))
    return found


def _open_port(
    settings: Settings, pipelines: _Pipelines, services: Sequence[Service], tls: TlsFiles | None, comments: Comments
) -> Port:
    """The port that has all services, and health and reflection of them. Raises PortInUse, BadCertificate."""
    server = make_server(settings, pipelines.ordinary)
    server.add_generic_rpc_handlers([generic_handler(service.full_name, service.handlers) for service in services])
    names = [service.full_name for service in services]
    add_reflection(server, [*names, "grpc.health.v1.Health"], comments)
    return Port(server=server, health=Health(server, names), address=bind(server, settings.listen, tls))


def _open_inference_port(
    settings: Settings, pipelines: _Pipelines, brought: Iterable[Opened], tls: TlsFiles | None
) -> Port | None:
    """The port for large messages, if there is to be one. Raises PortInUse, BadCertificate, NothingToServe.

    It has health, and no reflection: that is on the other port, and here a stream of it could hold large messages.
    """
    if settings.inference_listen is None or pipelines.large is None:
        return None
    large = {service.full_name: service.handlers for opened in brought for service in opened.large_services}
    if not large:
        raise NothingToServe
    server = make_server(settings, pipelines.large)
    server.add_generic_rpc_handlers([generic_handler(name, handlers) for name, handlers in large.items()])
    health = Health(server, [*large])
    return Port(server=server, health=health, address=bind(server, settings.inference_listen, tls))


def _tune_interpreter() -> None:
    """Have threads give the interpreter up soon.

    A call gives the interpreter up some ten times, at each statement and each commit, and waits for every thread that is
    working, 5 ms each time unless told otherwise. Beside four callers who have large definitions checked, GetBlob's p99 went
    from 377 to 121 ms.
    """
    sys.setswitchinterval(SWITCH_SECONDS)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then shut down gracefully."""
    memory.tune_allocator()
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    # What is there once a server has started is 150,000 objects, which took a collection 40 ms.
    async with running(settings, BlobTypes.load(), logs.show_key) as server, ShortCollections().kept():
        _tune_interpreter()
        logs.announce(server.address)
        also = {} if server.inference_address is None else {"inference": server.inference_address}
        log.info("serving", address=server.address, http=server.http_address, **also)
        await asked.wait()
        log.info("draining", seconds=settings.drain_seconds)
    log.info("stopped")
