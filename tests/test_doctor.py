"""`blobhub-server doctor`: all is well, on both databases and beside a running server; and each thing that can be wrong."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import grpc
import pytest
from blobhub.v1 import organization_pb2
from blobhub_server import doctor
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.clock import utc_now
from blobhub_server.config import Settings
from blobhub_server.doctor import FAIL, OK, WARN, Finding, Installation, examine
from blobhub_server.scheduler import blob_type
from blobhub_server.scheduler.timetable import find_zone
from commands import run
from databases import execute
from issuer import Issuer
from served import connected, served

WHATS = [
    *("configuration", "blob types", "address", "inference address", "database", "migrations"),
    *("object store", "master key", "token issuer", "clock"),
    "blobhub.compute.scheduler, time zones",
    "blobhub.compute.workflow, script workers",
    "blobhub.model.onnx, ONNX packages",
    "stranger.notes, session",
]


async def examined(settings: Settings, clock=utc_now, **of_types) -> dict[str, Finding]:
    installation = Installation(settings=settings, types=BlobTypes.load(settings=of_types), clock=clock)
    return {finding.check: finding async for finding in examine(installation)}


async def failing(settings: Settings, what: str, said: str, *, verdict: str = FAIL, clock=utc_now) -> None:
    """See that one check alone does not say ok, and what it says."""
    found = await examined(settings, clock)
    assert {finding.check: finding.verdict for finding in found.values() if finding.verdict != OK} == {what: verdict}
    assert said in found[what].detail
    assert "\n" not in str(found[what])


@pytest.fixture
async def settings(tmp_path: Path, database_url: str) -> Settings:
    """Settings of a server that has run, and does not run now."""
    async with (
        served(tmp_path / "data", database_url) as server,
        connected(server.address, server.admin_key) as api,
    ):
        await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))
    return server.settings


async def test_all_is_well_beside_a_running_server(tmp_path: Path, database_url: str, issuer: Issuer) -> None:
    async with served(tmp_path / "data", database_url, **issuer.settings, inference_listen="127.0.0.1:0") as server:
        environment = {name.upper(): str(value) for name, value in issuer.settings.items()}
        environment |= {"LISTEN": server.address, "INFERENCE_LISTEN": server.inference_address, "DATABASE_URL": database_url}
        done = await asyncio.to_thread(
            run, "doctor", tmp_path / "data", **{f"BLOBHUB_{name}": value for name, value in environment.items()}
        )
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"ok   {what}" for what in WHATS], done.stdout + done.stderr
    assert done.returncode == 0
    assert "blobhub.compute.workflow of blobhub-server" in lines[1]
    assert f"serves on {server.address}" in lines[2]
    assert f"serves on {server.inference_address}; messages have up to 32 MiB there" in lines[3]
    assert "has 3 keys" in lines[8]


async def test_all_is_well_when_the_server_is_down_and_before_it_ever_ran(settings: Settings, tmp_path: Path) -> None:
    found = await examined(settings)
    assert {finding.verdict for finding in found.values()} == {OK}
    assert "is free" in found["address"].detail
    fresh = Settings(data_dir=tmp_path / "fresh", listen="127.0.0.1:0")
    found = await examined(fresh)
    assert {finding.verdict for finding in found.values()} == {OK}
    assert not fresh.data_dir.exists()


async def test_looking_leaves_everything_as_it_was_and_the_server_can_start(settings: Settings) -> None:
    await examined(settings)
    objects = settings.data_dir / "objects"
    assert [path for path in objects.rglob("*") if path.is_file()] == []
    async with served(settings.data_dir, settings.database_url) as again:
        assert again.admin_key == ""


@pytest.mark.parametrize(
    ("environment", "what", "said"),
    [
        ({"BLOBHUB_LEASE_SECONDS": "swordfish"}, "configuration", "BLOBHUB_LEASE_SECONDS"),
        ({"BLOBHUB_LOG_LEVEL": "swordfish"}, "configuration", "BLOBHUB_LOG_LEVEL"),
        ({"BLOBHUB_ADMIN_KEY": "swordfish"}, "configuration", "BLOBHUB_ADMIN_KEY"),
        ({"BLOBHUB_DATABASE_URL": "mysql://kim:swordfish@x/y"}, "database", "BLOBHUB_DATABASE_URL"),
        ({"BLOBHUB_DATABASE_URL": "swordfish"}, "database", "BLOBHUB_DATABASE_URL"),
        ({"BLOBHUB_DATABASE_URL": "postgresql://kim:swordfish@127.0.0.1:1/x"}, "database", "Connect call failed"),
        ({"BLOBHUB_MASTER_KEY": "swordfish"}, "master key", "BLOBHUB_MASTER_KEY: key 1 is not"),
        ({"BLOBHUB_OIDC_ISSUER": "https://issuer.example"}, "token issuer", "BLOBHUB_OIDC_AUDIENCE"),
        ({"BLOBHUB_NOTES_SESSION": "Swordfish!"}, "stranger.notes, session", "BLOBHUB_NOTES_SESSION"),
    ],
)
def test_a_wrong_setting_is_named_and_not_repeated(
    tmp_path: Path, environment: dict[str, str], what: str, said: str
) -> None:
    done = run("doctor", tmp_path / "data", **environment)
    assert done.returncode == 1
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(f"FAIL {what}: "))
    assert said in line
    assert "swordfish" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


ILL = {
    "ill/__init__.py": """
from blobhub_server.blobtypes.contract import BlobType, Check
from blobhub_server.config import SettingsModel
from pydantic import Field, model_validator

class IllSettings(SettingsModel):
    ill_least: int = Field(1, description="The least.")
    ill_most: int = Field(2, description="The most.")

    @model_validator(mode="after")
    def in_order(self):
        if self.ill_least > self.ill_most:
            raise ValueError("BLOBHUB_ILL_LEAST is above BLOBHUB_ILL_MOST")
        return self

class Ill(BlobType):
    title, description, settings = "Ill", "Has checks that do not work.", IllSettings

    def open(self, host, given):
        raise NotImplementedError

    async def validate(self, content):
        return []

class WithoutChecks(Ill):
    name = "ill.checks"

    def checks(self, settings, given):
        return [Check("sum", self.add), 1 / (2 - given[IllSettings].ill_most)]

    async def add(self):
        return "2"

class WithoutLook(Ill):
    name, settings = "ill.look", SettingsModel

    def checks(self, settings, given):
        return [Check("first", lambda: 1 / 0), Check("second", self.add)]

    async def add(self):
        return "2"
""",
    "ill-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: ill\nVersion: 1\n",
    "ill-1.dist-info/entry_points.txt": (
        "[blobhub.blob_types]\nill.checks = ill:WithoutChecks\nill.look = ill:WithoutLook\n"
    ),
}
"""Two blob types whose checks do not work, and settings that are only wrong together."""


@pytest.fixture
def ill(tmp_path: Path) -> dict[str, str]:
    """The environment that has them installed."""
    for name, text in ILL.items():
        (tmp_path / "ill" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ill" / name).write_text(text)
    return {"PYTHONPATH": str(tmp_path / "ill")}


def test_a_type_whose_checks_cannot_be_made_or_run_is_named_and_the_others_are_looked_at(tmp_path: Path, ill) -> None:
    done = run("doctor", tmp_path / "data", **ill)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("FAIL")] == [
        "FAIL ill.checks, checks: the check itself failed with ZeroDivisionError",
        "FAIL ill.look, first: the check itself failed with ZeroDivisionError",
    ]
    assert "ok   ill.look, second: 2" in lines
    assert any(line.startswith("ok   stranger.notes, session") for line in lines)


def test_settings_that_are_only_wrong_together_are_told(tmp_path: Path, ill) -> None:
    done = run("doctor", tmp_path / "data", **ill, BLOBHUB_ILL_LEAST="3")
    assert done.returncode == 1
    assert done.stdout == "FAIL configuration: BLOBHUB_ILL_LEAST is above BLOBHUB_ILL_MOST\n"
    assert "Traceback" not in done.stderr


@asynccontextmanager
async def listener(kind: str) -> AsyncIterator[str]:
    """Another program that listens: its address."""
    if kind == "grpc":
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        yield f"127.0.0.1:{port}"
        await server.stop(None)
    else:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["grpc", "mute"])
async def test_an_address_that_another_program_has(tmp_path: Path, kind: str) -> None:
    async with listener(kind) as address:
        said = f"cannot listen on {address}"
        await failing(Settings(data_dir=tmp_path, listen=address), "address", said)
        settings = Settings(data_dir=tmp_path, listen="127.0.0.1:0", inference_listen=address)
        await failing(settings, "inference address", said)


async def test_an_address_that_is_not_this_machines(tmp_path: Path) -> None:
    await failing(Settings(data_dir=tmp_path, listen="192.0.2.1:7443", listen_in_clear=True), "address", "BLOBHUB_LISTEN")


async def test_a_database_at_another_migration(settings: Settings) -> None:
    await execute(settings.url, "UPDATE alembic_version_stranger_notes SET version_num = '0001'")
    said = "stranger.notes is at 0001, this program at 0003; back the database up and run `blobhub-server migrate`"
    await failing(settings, "migrations", said)
    await execute(settings.url, "UPDATE alembic_version_stranger_notes SET version_num = '0003'")
    await execute(settings.url, "UPDATE alembic_version SET version_num = '9999'")
    await failing(settings, "migrations", "newer program")
    await execute(settings.url, "DROP TABLE alembic_version")
    assert "platform has no tables yet" in (await examined(settings))["migrations"].detail


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "blobhub.db").write_bytes(b"swordfish" * 1000)
    found = await examined(Settings(data_dir=tmp_path, listen="127.0.0.1:0"))
    for what in ("database", "migrations", "clock"):
        assert found[what].verdict == FAIL
        assert "file is not a database" in found[what].detail


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    found = await examined(Settings(data_dir=tmp_path / "data", listen="127.0.0.1:0"))
    for what in ("database", "object store"):
        assert found[what].verdict == FAIL
        assert "BLOBHUB_DATA_DIR" in found[what].detail


async def test_an_object_store_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("a file")
    await failing(Settings(data_dir=tmp_path, listen="127.0.0.1:0"), "object store", "BLOBHUB_DATA_DIR")


@pytest.mark.either_database
async def test_an_object_store_that_is_nearly_full(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_FREE_BYTES", 1 << 62)
    await failing(settings, "object store", "make room")


@pytest.mark.either_database
async def test_an_object_store_that_gives_other_bytes_back(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"others")
    await failing(settings, "object store", "gives back other bytes")


@pytest.mark.either_database
async def test_a_master_key_that_is_open_to_others_broken_gone_or_another(settings: Settings) -> None:
    file = settings.key_file
    key = file.read_text()
    file.chmod(0o644)
    await failing(settings, "master key", f"{file} is open to others; chmod 600 it")
    file.chmod(0o600)
    file.write_text("swordfish")
    await failing(settings, "master key", "is not 32 bytes in base64")
    file.unlink()
    await failing(settings, "master key", f"{file} lacks keys that the database needs: ")
    given: dict[str, Any] = settings.model_dump()
    assert (await examined(Settings(**given | {"master_key": key})))["master key"].verdict == OK
    other = base64.b64encode(b"swordfish" * 4).decode()[:43] + "="
    await failing(Settings(**given | {"master_key": other}), "master key", "BLOBHUB_MASTER_KEY lacks keys")


@pytest.mark.either_database
async def test_an_issuer_that_is_down_or_has_no_key_that_fits(settings: Settings, issuer: Issuer) -> None:
    given: dict[str, Any] = settings.model_dump() | issuer.settings
    other = Settings(**given | {"oidc_algorithms": "ES512"})
    await failing(other, "token issuer", "none of its keys is for ES512")
    issuer.document = b"<html>"
    await failing(Settings(**given), "token issuer", "BLOBHUB_OIDC_JWKS")
    issuer.stop()
    await failing(Settings(**given), "token issuer", "accepts no connection")


@pytest.mark.either_database
@pytest.mark.parametrize(("seconds", "verdict"), [(-20, WARN), (-300, FAIL)])
async def test_a_clock_that_is_behind(settings: Settings, seconds: int, verdict: str) -> None:
    await failing(
        settings, "clock", "s apart from the", verdict=verdict, clock=lambda: datetime.now(UTC) + timedelta(seconds=seconds)
    )


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_clock_that_is_ahead_of_the_database_servers(settings: Settings) -> None:
    await failing(settings, "clock", "database server's", clock=lambda: datetime.now(UTC) + timedelta(minutes=5))


@pytest.mark.either_database
async def test_script_workers_that_get_no_time(settings: Settings) -> None:
    found = await examined(settings, code_seconds=1e-9)
    what = "blobhub.compute.workflow, script workers"
    assert {finding.check for finding in found.values() if finding.verdict != OK} == {what}
    assert "BLOBHUB_CODE_SECONDS" in found[what].detail


@pytest.mark.either_database
async def test_time_zones_whose_rules_cannot_be_read(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(name: str) -> ZoneInfo:
        if name == "Europe/Berlin":
            raise FileNotFoundError(name)
        return find_zone(name)

    monkeypatch.setattr(blob_type, "find_zone", read)
    await failing(settings, "blobhub.compute.scheduler, time zones", "cannot be read (Europe/Berlin); install tzdata anew")


def test_blob_types_that_do_not_fit_together_are_a_finding(tmp_path: Path) -> None:
    """A need that nobody meets, say; the command tells it as it tells everything else."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "rival.py").write_text(
        "from stranger_notes import BlobType\n"
        "class Rival(BlobType):\n"
        "    name, title, description, needs = 'other.notes', 'Notes', 'Other notes', (int,)\n"
        "    def open(self, host, given): ...\n"
        "    async def validate(self, content): ...\n"
    )
    folder = tmp_path / "other" / "rival-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[blobhub.blob_types]\nother.notes = rival:Rival\n")
    done = run("doctor", tmp_path / "data", PYTHONPATH=str(tmp_path / "other"))
    assert done.returncode == 1
    assert done.stdout == (
        "FAIL blob types: the blob type other.notes needs int, which no installed blob type offers; install one that does\n"
    )
