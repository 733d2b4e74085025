"""The server as a process and as a peer: start, refusal to start, health, reflection, bad bytes, leaks, drain."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import flows
import forked
import grpc
import pytest
import structlog
from blobhub.v1 import blob_pb2, caller_pb2, execution_pb2, organization_pb2, session_pb2
from blobhub_server.blobtypes.conformance import expect_refusal, reason_of, unpack
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.config import Settings
from blobhub_server.db.migrations import PLATFORM
from blobhub_server.db.sqlite_file import DatabaseInUse
from blobhub_server.platform.store import blob as store
from blobhub_server.start import PortInUse
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from methods import served_methods
from served import Api, Served, ServerProcess, connected, served
from waiting import read_to_end

pytestmark = pytest.mark.either_database

BIN = Path(sys.executable).parent


def start(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `serve`, which is expected to end by itself."""
    env = os.environ | {"BLOBHUB_DATA_DIR": str(tmp_path), "BLOBHUB_LISTEN": "127.0.0.1:0"} | environment
    return forked.run("serve", env=env)


async def test_a_taken_port_is_a_clear_failure(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = await asyncio.to_thread(start, tmp_path, BLOBHUB_LISTEN=address)
        assert done.returncode == 1
        assert done.stderr.strip().splitlines()[-1].startswith(f"blobhub-server: cannot listen on {address}")
        assert "Traceback" not in done.stderr


async def test_two_servers_do_not_share_a_port(tmp_path: Path) -> None:
    async with served(tmp_path / "one") as first:
        with pytest.raises(PortInUse):
            async with served(tmp_path / "two", listen=first.address):
                pass


async def test_a_second_server_on_the_same_sqlite_database_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path / "data"):
        with pytest.raises(DatabaseInUse, match=str(os.getpid())):
            async with served(tmp_path / "data"):
                pass


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"BLOBHUB_LEASE_SECONDS": "never"}, "BLOBHUB_LEASE_SECONDS"),
        ({"BLOBHUB_DRAIN_SECONDS": "never"}, "BLOBHUB_DRAIN_SECONDS"),
        ({"BLOBHUB_DATABASE_URL": "mysql://x"}, "BLOBHUB_DATABASE_URL"),
        ({"BLOBHUB_ADMIN_KEY": "secret-nonsense"}, "BLOBHUB_ADMIN_KEY"),
    ],
)
def test_a_bad_setting_is_named_in_one_line_and_not_repeated(tmp_path: Path, environment: dict[str, str], said: str) -> None:
    done = start(tmp_path, **environment)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "nonsense" not in done.stderr


def test_migrate_says_where_the_database_is(tmp_path: Path) -> None:
    env = os.environ | {"BLOBHUB_DATA_DIR": str(tmp_path)}
    done = forked.run("migrate", env=env)
    assert done.returncode == 0
    assert f"platform is at migration {PLATFORM.head}\n" in done.stdout
    for chain in BlobTypes.load().chains():
        assert f"{chain.name} is at migration {chain.head}\n" in done.stdout


async def test_the_administrators_key_is_shown_once_and_can_be_given(tmp_path: Path) -> None:
    given = forked.run("make-key", env=os.environ).stdout.strip()
    async with served(tmp_path / "data") as first:
        assert first.admin_key.startswith("bhk_")
    async with served(tmp_path / "data") as second:
        assert second.admin_key == ""
    async with served(tmp_path / "data", admin_key=given) as third:
        for key in (first.admin_key, given):
            async with connected(third.address, key) as api:
                assert (await api.callers.GetCaller(caller_pb2.GetCallerRequest())).caller.administrator


async def test_health_is_told_per_service_and_overall(server: Served) -> None:
    async with connected(server.address, None) as api:
        health = health_pb2_grpc.HealthStub(api.channel)
        for name in ("", "blobhub.v1.BlobService", "stranger.notes.v1.NotesService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_speaks_both_versions(server: Served, version: str) -> None:
    async with connected(server.address, None) as api:
        call = api.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        answer = await call.read()
    names = {service.name for service in answer.list_services_response.service}
    assert {"blobhub.v1.ExecutionService", "stranger.notes.v1.NotesService", "grpc.reflection.v1.ServerReflection"} <= names


def test_grpcurl_describes_what_is_served(tmp_path: Path) -> None:
    async def describe() -> str:
        async with served(tmp_path / "data") as server:
            command = [BIN / "grpcurl", "-plaintext", server.address, "describe", "blobhub.v1.ExecutionService"]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
            return done.stdout

    assert "rpc RunExecution" in asyncio.run(describe())


async def test_bytes_that_are_no_message_are_an_invalid_argument(api: Api) -> None:
    for method in served_methods():
        call = (api.channel.unary_stream if method.server_streaming else api.channel.unary_unary)(method.path)(
            b"\xff\xff\xff"
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await (call.read() if method.server_streaming else call)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT, method.path
        assert reason_of(raised.value) == "UNDECODABLE_REQUEST"


async def test_an_unforeseen_exception_is_internal_with_an_id_and_nothing_else(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_args, **_kwargs):
        raise RuntimeError("the password is swordfish")

    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))
    monkeypatch.setattr(store, "page", fail)
    listing = api.blobs.ListBlobs(blob_pb2.ListBlobsRequest(organization="acme"))
    with structlog.testing.capture_logs() as logged:
        error = await expect_refusal(listing, grpc.StatusCode.INTERNAL, "INTERNAL")
    info = error_details_pb2.ErrorInfo()
    assert unpack(error, info)
    assert error.details() == f"internal error {info.metadata['error_id']}"
    assert "swordfish" not in str(error.trailing_metadata())
    (entry,) = (line for line in logged if line["event"] == "internal_error")
    assert entry["error_id"] == info.metadata["error_id"]
    assert "swordfish" in str(entry["exc_info"])


async def test_a_broken_constraint_names_field_and_all_violations(api: Api) -> None:
    request = execution_pb2.StartExecutionRequest(
        session="01890000-0000-7000-8000-000000000000",
        spec={"definition": "", "step_limit": -1, "input_data": [execution_pb2.ExecutionInput()]},
    )
    session_id = await api.session(flows.steps(1))
    request.session = session_id
    error = await expect_refusal(api.executions.StartExecution(request), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    bad = error_details_pb2.BadRequest()
    assert unpack(error, bad)
    assert {violation.field for violation in bad.field_violations} == {
        "spec.definition",
        "spec.step_limit",
        "spec.input_data[0].alias",
    }


async def test_a_drain_ends_streams_with_the_last_sequence_and_says_when_to_come_back(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    await server.start()
    async with connected(server.address, server.admin_key) as api:
        session_id = await api.session(flows.delay(30))
        await api.executions.StartExecution(
            execution_pb2.StartExecutionRequest(session=session_id, spec={"definition": "workflow"})
        )
        call = api.sessions.WatchSession(session_pb2.WatchSessionRequest(session=session_id))
        seen = (await call.read()).events[-1].session_sequence
        ended = asyncio.create_task(asyncio.to_thread(server.stop))
        error = await the_end(call)
        assert await ended == 0
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert unpack(error, info)
    assert info.metadata["last_sequence"] == str(seen)
    assert unpack(error, retry)


async def the_end(call) -> grpc.aio.AioRpcError:
    """The error that a stream ends with."""
    try:
        await read_to_end(call)
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the stream ended without an error")


def test_settings_are_described_and_read_from_the_environment() -> None:
    assert Settings.model_config["env_prefix"] == "BLOBHUB_"
    models = [Settings, *(item.type.settings for item in BlobTypes.load().all())]
    assert all(field.description for model in models for field in model.model_fields.values())
    assert {"listen", "code_workers", "lease_seconds"} <= {name for model in models for name in model.model_fields}
