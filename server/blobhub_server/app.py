"""The composition root: the whole server, put together from top to bottom. It alone knows every part."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc

from blobhub_server import logs
from blobhub_server.blobtypes.access import Locator
from blobhub_server.blobtypes.contract import Host, Service
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.clock import utc_now
from blobhub_server.config import Settings
from blobhub_server.db.migrations import migrate
from blobhub_server.db.notify import Doorbell
from blobhub_server.db.opening import open_database
from blobhub_server.ids import Uuid7
from blobhub_server.objects.local import LocalObjects
from blobhub_server.platform.admission.actors import Actors
from blobhub_server.platform.admission.authentication import Authentication
from blobhub_server.platform.admission.gate import TOPIC, Gate
from blobhub_server.platform.admission.locators import Locators
from blobhub_server.platform.admission.oidc import open_tokens
from blobhub_server.platform.admission.roles import Roles
from blobhub_server.platform.admission.usage import KeyUsage
from blobhub_server.platform.assembly import ServiceContext
from blobhub_server.platform.assembly import kinds as platform_kinds
from blobhub_server.platform.assembly import services as platform_services
from blobhub_server.platform.blobs.contents import Contents
from blobhub_server.platform.blobs.limits import Limits
from blobhub_server.platform.bootstrap import bootstrap
from blobhub_server.platform.calls.answer import Answers
from blobhub_server.platform.calls.audit import Audit
from blobhub_server.platform.calls.change import Changes
from blobhub_server.platform.sealing.credentials import Credentials
from blobhub_server.platform.sealing.keyring import load
from blobhub_server.platform.sealing.rotation import adopt
from blobhub_server.rpc.access_options import check_resources, rules
from blobhub_server.rpc.drain import Drain
from blobhub_server.rpc.guard import Guard
from blobhub_server.rpc.handlers import generic_handler
from blobhub_server.rpc.pipeline import Pipeline
from blobhub_server.rpc.reflection import add_reflection
from blobhub_server.rpc.server import Health, bind, make_server, shut_down
from blobhub_server.rpc.validation import compile_constraints


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A running server: its address, and the administrator's key if this was the first start."""

    address: str
    admin_key: str | None


@asynccontextmanager
async def running(settings: Settings, types: BlobTypes) -> AsyncIterator[RunningServer]:
    """Start a server; leave to shut it down gracefully. Raises StartError when it cannot start."""
    logs.set_up(settings)
    clock, ids, entropy = utc_now, Uuid7(), os.urandom
    async with AsyncExitStack() as stack:
        # Storage
        db = await open_database(settings.url)
        stack.push_async_callback(db.close)
        await migrate(settings.url, types.chains())
        keyring = load(settings, entropy)
        await adopt(db, keyring)
        objects = LocalObjects(settings.data_dir / "objects")
        await objects.sweep()

        # What all parts share
        bell = Doorbell(db)
        await stack.enter_async_context(bell.hearing())
        audit = Audit(db, bell, clock, ids)
        stack.push_async_callback(audit.close)
        roles = Roles(db)
        answers = Answers(db, clock, roles, keyring.derive_keys(b"answers"), keyring.current)
        changes = Changes(db, answers, audit)
        credentials = Credentials(db, keyring)
        limits = Limits(types, clock)
        contents = Contents(objects, limits, clock, ids)
        locators = Locators(db)
        host = Host(
            settings=settings,
            db=db,
            bell=bell,
            clock=clock,
            ids=ids,
            drain=Drain(),
            revisions=locators,
            actors=Actors(clock),
            contents=contents,
            settle=changes.settle,
            limits=limits,
            credentials=credentials,
        )
        host.drain.on_start(bell.wake_all)
        given = settings.admin_key.get_secret_value() if settings.admin_key else None
        admin_key = await bootstrap(db, audit, clock, ids, entropy, given)

        # Blob types
        kinds: dict[str, Locator] = dict(platform_kinds(locators))
        brought: list[Service] = []
        await stack.enter_async_context(types.running(host))
        for opened in types.opened():
            brought += opened.services
            kinds |= opened.locators
        context = ServiceContext(contents, credentials, limits, types, locators, roles)
        services = [*platform_services(host, context, entropy), *brought]

        # Admission and serving
        access = rules(service.full_name for service in services)
        check_resources(access, kinds)
        compile_constraints(rule.request for rule in access.values())
        authentication = await stack.enter_async_context(_authentication(host, audit))
        gate = Gate(
            authentication=authentication,
            roles=roles,
            answers=answers,
            changes=changes,
            audit=audit,
            rules=access,
            locators=kinds,
        )
        guard = Guard(bell, clock, TOPIC)
        await stack.enter_async_context(guard.watching())
        server = make_server(settings, Pipeline(gate, guard))
        health = _serve(server, services)
        address = bind(server, settings.listen)
        await server.start()
        await health.set_serving()
        stack.push_async_callback(shut_down, server, health, host.drain, settings.drain_seconds)
        yield RunningServer(address, admin_key)


@asynccontextmanager
async def _authentication(host: Host, audit: Audit) -> AsyncIterator[Authentication]:
    """Authentication by keys, and by tokens where an issuer is configured."""
    usage = KeyUsage(host.db, host.clock)
    tokens = open_tokens(host.settings, host.db, audit, host.clock, host.ids)
    async with usage.writing():
        yield Authentication(host.db, host.clock, usage, tokens)


def _serve(server: grpc.aio.Server, services: Sequence[Service]) -> Health:
    """Register the services, and health and reflection of them."""
    server.add_generic_rpc_handlers([generic_handler(service.full_name, service.handlers) for service in services])
    names = [service.full_name for service in services]
    add_reflection(server, [*names, "grpc.health.v1.Health"])
    return Health(server, names)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then shut down gracefully."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    async with running(settings, BlobTypes.load()) as server:
        logs.announce(server.address, server.admin_key)
        await asked.wait()
