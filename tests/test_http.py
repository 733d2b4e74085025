"""The HTTP port: probes, metrics, TLS, and connections that ask nothing."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import acme
import httpx
import pytest
from blobhub_server.app import running
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.config import Settings
from blobhub_server.start import PortInUse
from certificates import Authority
from served import Api, Served, served
from waiting import within_deadline

pytestmark = pytest.mark.either_database


@asynccontextmanager
async def http(server: Served, **options: object) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{server.http_address}", **options) as client:
        yield client


# Probes and metrics


async def test_a_server_that_serves_is_alive_and_ready(server: Served) -> None:
    async with http(server) as client:
        for path in ("/livez", "/readyz"):
            answer = await client.get(path)
            assert (answer.status_code, answer.text) == (200, "ok\n")
            assert (await client.post(path)).status_code == 405


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/objects", "/docs", "/metrics/", "/..%2f", "/v1/uploads/x/parts/a"])
async def test_nothing_else_is_there(server: Served, path: str) -> None:
    async with http(server) as client:
        assert (await client.get(path, follow_redirects=False)).status_code == 404


async def test_calls_are_counted_under_the_usual_names(server: Served, api: Api, anonymous: Api) -> None:
    await acme.organization(api)
    with pytest.raises(Exception, match="no key came"):
        await acme.organization(anonymous, "other")
    async with http(server) as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    labels = 'grpc_method="CreateOrganization",grpc_service="blobhub.v1.OrganizationService",grpc_type="unary"'

    def value(name: str, more: str = "") -> float:
        begins = f"{name}{{"
        (found,) = [
            line for line in lines if line.startswith(begins) and {*labels.split(","), *filter(None, [more])} <= names(line)
        ]
        return float(found.rpartition(" ")[2])

    assert value("grpc_server_started_total") == 2
    assert value("grpc_server_handled_total", 'grpc_code="OK"') == 1
    assert value("grpc_server_handled_total", 'grpc_code="Unauthenticated"') == 1
    assert value("grpc_server_msg_sent_total") == 1
    assert value("grpc_server_handling_seconds_count") == 2
    assert value("grpc_server_handling_seconds_bucket", 'le="+Inf"') == 2
    assert "process_resident_memory_bytes" in answer.text


def names(line: str) -> set[str]:
    return {*line.partition("{")[2].rpartition("}")[0].split(",")}


async def test_a_port_that_is_taken_stops_the_start(server: Served, tmp_path: Path) -> None:
    with pytest.raises(PortInUse):
        async with served(tmp_path / "other", http_listen=server.http_address):
            pass


async def test_a_server_that_drains_is_not_ready_and_then_gone(tmp_path: Path, database_url: str) -> None:
    async with served(tmp_path, database_url) as server, http(server) as client:
        assert (await client.get("/readyz")).status_code == 200
    async with http(server) as client:
        with pytest.raises(httpx.TransportError):
            await client.get("/readyz")


async def test_it_speaks_tls_with_the_files_as_they_are_now(tmp_path: Path) -> None:
    authority = Authority("tests")

    def write() -> bytes:
        pair = authority.issue("server")
        pair.write(tmp_path, "server")
        return ssl.PEM_cert_to_DER_cert(pair.certificate.decode())

    def shown(address: str) -> bytes:
        host, _, port = address.rpartition(":")
        return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port))))

    first = write()
    files = {"tls_certificate_file": tmp_path / "server.pem", "tls_key_file": tmp_path / "server.key"}
    settings = Settings(data_dir=tmp_path / "data", listen="127.0.0.1:0", **files)
    async with running(settings, BlobTypes.load()) as server:
        assert await asyncio.to_thread(shown, server.http_address) == first
        second = write()
        assert await asyncio.to_thread(shown, server.http_address) == second


@pytest.mark.parametrize("beginning", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: x\r\n"])
@pytest.mark.parametrize("is_first", [True, False])
async def test_a_connection_whose_request_does_not_come_is_ended(tmp_path: Path, beginning: bytes, is_first: bool) -> None:
    seconds = {"handshake_seconds": 0.5, "max_connection_idle_seconds": 1}
    async with served(tmp_path, **seconds) as server:
        host, _, port = server.http_address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        with suppress(ConnectionError):
            if not is_first:
                writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                await within_deadline(reader.readuntil(b"ok\n"))
            writer.write(beginning)
            await within_deadline(reader.read())
        writer.close()


async def test_no_more_connections_are_open_than_may_be(tmp_path: Path) -> None:
    async with served(tmp_path, max_connections=3) as server:
        host, _, port = server.http_address.rpartition(":")
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(6)]
        for reader, _ in opened[3:]:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await within_deadline(reader.readexactly(1))
        for _, writer in opened:
            writer.close()
