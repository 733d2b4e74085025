"""`blobhub-server doctor`: checks all that a server needs and changes nothing. A server may be running.

Each check prints one line. No line holds a secret: of an unforeseen error only the type is printed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from blobhub_server import logs
from blobhub_server.blobtypes.registry import BlobTypes, InstalledType
from blobhub_server.clock import Clock
from blobhub_server.config import Settings, variable
from blobhub_server.db.migrations import PLATFORM, Chain, position
from blobhub_server.db.opening import parse_url
from blobhub_server.db.read_only import NoDatabaseYet, open_read_only, server_time
from blobhub_server.errors import StorageUnavailable
from blobhub_server.http.outbound.message import OutboundError
from blobhub_server.objects.opening import folder_of, open_objects
from blobhub_server.platform.admission import oidc
from blobhub_server.platform.rules import api_key as key_rules
from blobhub_server.platform.rules import oidc as oidc_rules
from blobhub_server.platform.sealing import key_file
from blobhub_server.platform.sealing.key_file import KeyFile
from blobhub_server.platform.sealing.keyring import fingerprint
from blobhub_server.platform.store import audit as audit_store
from blobhub_server.platform.store import credential as credential_store
from blobhub_server.platform.store import master_key as master_key_store
from blobhub_server.rpc.server import bind
from blobhub_server.rpc.tls import TlsFiles
from blobhub_server.start import PortInUse, StartError, StartWarning

OK, WARN, FAIL = "ok", "warn", "FAIL"
TIMEOUT_SECONDS = 10.0
MIN_FREE_BYTES = 100 << 20
Look = Callable[[], Awaitable[str]]
"""A check: what it found, in words. It raises StartError when something is wrong, and StartWarning when it may be."""

MAX_DRIFT, MAX_TOLERATED_DRIFT = timedelta(seconds=1), timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check, printed as a line: `ok   clock: …`."""

    verdict: str
    check: str
    detail: str

    def __str__(self) -> str:
        return f"{self.verdict:4} {self.check}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Installation:
    """What is checked: a server's settings, its blob types, and its clock."""

    settings: Settings
    types: BlobTypes
    clock: Clock


async def examine(installation: Installation) -> AsyncIterator[Finding]:
    """Run all checks, one after the other: those of every server, then those of its blob types."""
    for what, check in _CHECKS.items():
        yield await _run_check(what, partial(check, installation))
    for installed in installation.types.all():
        for what, look in _checks_of(installed, installation.settings):
            yield await _run_check(what, look)


def _checks_of(installed: InstalledType, settings: Settings) -> list[tuple[str, Look]]:
    """A blob type's checks, by the names that are printed. Where it cannot tell them, one that fails with the cause."""
    name = installed.type.name
    try:
        return [(f"{name}, {check.what}", check.look) for check in installed.checks(settings)]
    except Exception as error:
        return [(f"{name}, checks", partial(_fail, error))]


async def _fail(error: Exception) -> str:
    raise error


async def _run_check(what: str, look: Look) -> Finding:
    """Run a check; what it raises becomes a finding. `look` is called here, so that this holds for all of it."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return Finding(verdict=OK, check=what, detail=await look())
    except StartWarning as doubt:
        return Finding(verdict=WARN, check=what, detail=str(doubt))
    except NoDatabaseYet:
        return Finding(verdict=OK, check=what, detail="there is no database yet; the first start makes it")
    except StartError as error:
        return Finding(verdict=FAIL, check=what, detail=str(error))
    except TimeoutError:
        return Finding(verdict=FAIL, check=what, detail=f"no answer within {TIMEOUT_SECONDS:g} s")
    except Exception as error:
        return Finding(verdict=FAIL, check=what, detail=f"the check itself failed with {type(error).__name__}")


async def _configuration(installation: Installation) -> str:
    settings = installation.settings
    logs.set_up(settings)
    if settings.admin_key is not None and key_rules.parse(settings.admin_key.get_secret_value()) is None:
        raise StartError("BLOBHUB_ADMIN_KEY is not a well-formed key; `blobhub-server make-key` makes one")
    every = (settings, *(item.settings for item in installation.types.all()))
    given = sorted(variable(name) for model in every for name in model.model_fields_set)
    return ", ".join(given) if given else "nothing is set, so the defaults hold"


async def _types(installation: Installation) -> str:
    return ", ".join(f"{item.type.name} of {item.distribution}" for item in installation.types.all())


async def _address(installation: Installation) -> str:
    return await _look_at(installation.settings, "listen", "blobhub.v1.BlobService")


async def _inference_address(installation: Installation) -> str:
    settings = installation.settings
    if settings.inference_listen is None:
        return "BLOBHUB_INFERENCE_LISTEN is not set, so no message has more than 4 MiB"
    found = await _look_at(settings, "inference_listen", "blobhub.v1.InferenceService")
    return f"{found}; messages have up to {settings.inference_message_mib} MiB there"


async def _look_at(settings: Settings, name: str, service: str) -> str:
    """Look at the address that a setting has, where a server of ours that is running serves a service."""
    listen, tls = getattr(settings, name), TlsFiles.from_settings(settings)
    if await (asyncio.to_thread(_shows, listen, tls) if tls else _serves(listen, service)):
        return f"a BlobHub server serves on {listen}"
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    try:
        bind(server, listen, tls)
    except PortInUse as error:
        raise StartError(f"{error}; end what has it, or set {variable(name)}") from None
    finally:
        await server.stop(None)
    return f"{listen} is free"


def _shows(listen: str, tls: TlsFiles) -> bool:
    """Whether somebody there shows the certificate that the server would."""
    host, _, port = listen.rpartition(":")
    try:
        shown = ssl.get_server_certificate((host.strip("[]"), int(port)), timeout=2)
    except OSError:
        return False
    return ssl.PEM_cert_to_DER_cert(shown) == tls.leaf()


async def _serves(listen: str, service: str) -> bool:
    """Whether a BlobHub server, draining or not, listens there. Another program does not know the service."""
    async with grpc.aio.insecure_channel(listen) as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            await check(health_pb2.HealthCheckRequest(service=service).SerializeToString(), timeout=2)
        except grpc.aio.AioRpcError:
            return False
        return True


async def _database(installation: Installation) -> str:
    settings = installation.settings
    url = parse_url(settings.url)
    try:
        async with open_read_only(settings.url) as tx:
            await position(tx)
    except NoDatabaseYet:
        _require_writable(Path(url.database or ""))
        raise
    return f"{url.database} can be read" + (f" at {url.host}" if url.host else "")


async def _migrations(installation: Installation) -> str:
    chains = (PLATFORM, *installation.types.chains())
    async with open_read_only(installation.settings.url) as tx:
        return ", ".join([_compare_with_head(chain, await position(tx, chain)) for chain in chains])


def _compare_with_head(chain: Chain, at: str) -> str:
    """The state of a chain of migrations, in words. Raises StartError when the database is older or newer."""
    if at == chain.head:
        return f"{chain.name} is at {at or 'none'}, as this program"
    if not at:
        return f"{chain.name} has no tables yet; the first start brings it to {chain.head}"
    chain.require_known(at)
    raise StartError(
        f"{chain.name} is at {at}, this program at {chain.head}; back the database up and run `blobhub-server migrate`"
    )


async def _objects(installation: Installation) -> str:
    settings = installation.settings
    root = folder_of(settings)
    if root is not None and not root.exists():
        _require_writable(root)
        return f"there is no {root} yet; the first start makes it"
    where, variables = (root, "BLOBHUB_DATA_DIR") if root is not None else (settings.objects_url, "BLOBHUB_OBJECTS_URL")
    try:
        await open_objects(settings).probe()
    except (OSError, StorageUnavailable) as error:
        cause = error.__cause__ or error
        said = getattr(cause, "strerror", None) or type(cause).__name__
        raise StartError(f"{where} cannot be written to and read: {said}; see {variables}") from None
    if root is None:
        return f"{where} was written to and read"
    free = shutil.disk_usage(root).free
    said = f"{free / (1 << 30):.1f} GiB are free"
    if free < MIN_FREE_BYTES:
        raise StartError(f"only {said} in {root}; make room")
    return f"{root} was written to and read; {said}"


def _require_writable(path: Path) -> None:
    """Raise StartError when a file or folder that does not exist yet could not be made."""
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise StartError(f"{path} cannot be made: {there} is no folder that can be written to; see BLOBHUB_DATA_DIR")


async def _master_key(installation: Installation) -> str:
    settings = installation.settings
    if settings.master_key is not None:
        where, keys = "BLOBHUB_MASTER_KEY", key_file.parse(settings.master_key.get_secret_value(), "BLOBHUB_MASTER_KEY")
    else:
        where, keys = str(settings.key_file), KeyFile(settings.key_file).read() or []
    missing = sorted(await _sealed_under(settings) - {fingerprint(key) for key in keys})
    if missing:
        raise StartError(f"{where} lacks keys that the database needs: {', '.join(missing)}; see docs/credentials.md")
    if not keys:
        return f"there is no {where} yet; the first start makes it"
    return f"{where} has what is needed; the current key is {fingerprint(keys[0])}"


async def _sealed_under(settings: Settings) -> set[str]:
    """The ids of the master keys that the database needs; none when it is not at this program's migration."""
    try:
        async with open_read_only(settings.url) as tx:
            if await position(tx) != PLATFORM.head:
                return set()
            current = await master_key_store.find(tx)
            return await credential_store.master_key_ids(tx) | ({current} if current else set())
    except NoDatabaseYet:
        return set()


async def _issuer(installation: Installation) -> str:
    settings = installation.settings
    configured = oidc.configuration(settings)
    if configured is None:
        return "no issuer of tokens is configured"
    expected, source = configured
    try:
        found = oidc_rules.keys(await source())
    except (OutboundError, OSError, ValueError) as error:
        raise StartError(f"the keys cannot be read: {error}; see BLOBHUB_OIDC_JWKS") from None
    fitting = [key for key in found if key.kind in {oidc_rules.KINDS[name] for name in expected.algorithms}]
    if not fitting:
        raise StartError(f"none of its keys is for {', '.join(expected.algorithms)}; see BLOBHUB_OIDC_ALGORITHMS")
    return f"{expected.issuer} has {len(fitting)} keys to verify tokens with"


async def _clocks(installation: Installation) -> str:
    async with open_read_only(installation.settings.url) as tx:
        before = installation.clock()
        there = await server_time(tx)
        if there is not None:
            return _compare_times("the database server's", there, before, installation.clock())
        newest = await audit_store.newest(tx) if await position(tx) == PLATFORM.head else None
    if newest is None:
        return "there is nothing to compare it with yet"
    # An earlier time can only show that the clock has gone backwards since.
    return _compare_times("the newest audit entry's", max(newest, before), before, before)


def _compare_times(whose: str, there: datetime, before: datetime, after: datetime) -> str:
    """Compare another clock's time with our times before and after it was read."""
    apart = max(before - there, there - after, timedelta())
    said = f"{apart.total_seconds():.1f} s apart from {whose}"
    if apart > MAX_DRIFT:
        raise (StartError if apart > MAX_TOLERATED_DRIFT else StartWarning)(f"{said}; set the clocks, by NTP say")
    return said


_CHECKS: dict[str, Callable[[Installation], Awaitable[str]]] = {
    "configuration": _configuration,
    "blob types": _types,
    "address": _address,
    "inference address": _inference_address,
    "database": _database,
    "migrations": _migrations,
    "object store": _objects,
    "master key": _master_key,
    "token issuer": _issuer,
    "clock": _clocks,
}
