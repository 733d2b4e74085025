"""TLS: what the server shows and asks for, that it follows its files, and never serves others in clear by accident."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc
import pytest
from blobhub.v1 import caller_pb2
from blobhub_client import connect
from blobhub_server.config import Settings
from blobhub_server.doctor import _shows
from blobhub_server.rpc.tls import BadCertificate, TlsFiles
from calling import outcome
from certificates import Authority
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError
from served import served


async def is_administrator(address: str, key: str, credentials: grpc.ChannelCredentials | None) -> bool:
    """Ask who calls; raises AioRpcError when the two do not come together."""
    async with connect(address, key, credentials=credentials) as hub:
        answer = await hub.callers.GetCaller(caller_pb2.GetCallerRequest(), timeout=20)
    return answer.caller.administrator


async def refused(address: str, key: str, credentials: grpc.ChannelCredentials | None) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await is_administrator(address, key, credentials)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def is_serving(address: str, credentials: grpc.ChannelCredentials) -> bool:
    """Whether a port is reached, and answers."""
    async with grpc.aio.secure_channel(address, credentials) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
        return await outcome(check) == "OK"


def shown(address: str) -> bytes:
    """The certificate that a server shows."""
    host, port = address.split(":")
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port))))


async def test_a_server_with_a_certificate_speaks_tls_alone_and_follows_the_files(tmp_path: Path) -> None:
    authority, other = Authority("authority"), Authority("another")
    certificate, key = authority.issue("one").write(tmp_path, "server")
    async with served(tmp_path / "data", tls_certificate_file=certificate, tls_key_file=key) as server:
        trusting = grpc.ssl_channel_credentials(authority.certificate)
        assert await is_administrator(server.address, server.admin_key, trusting)
        await refused(server.address, server.admin_key, grpc.ssl_channel_credentials(other.certificate))
        await refused(server.address, server.admin_key, None)
        files = TlsFiles(certificate=certificate, key=key, client_ca=None)
        first = files.leaf()
        assert _shows(server.address, files), "the doctor knows its server"
        assert shown(server.address) == first

        later = authority.issue("two")
        certificate.write_bytes(later.certificate)  # its key is not there yet
        assert shown(server.address) == first
        key.write_bytes(later.key)
        assert shown(server.address) == files.leaf() != first
        key.unlink()
        assert shown(server.address) == files.leaf(), "what was read last stays in force"
        assert await is_administrator(server.address, server.admin_key, trusting)


async def test_with_an_authority_of_clients_a_key_alone_does_not_suffice(tmp_path: Path) -> None:
    authority, clients, other = Authority("authority"), Authority("clients"), Authority("another")
    certificate, key = authority.issue("server").write(tmp_path, "server")
    client_ca = tmp_path / "clients.pem"
    client_ca.write_bytes(clients.certificate)
    files = {"tls_certificate_file": certificate, "tls_key_file": key, "tls_client_ca_file": client_ca}
    async with served(tmp_path / "data", **files, inference_listen="127.0.0.1:0") as server:
        for issuer, comes_in in ((clients, True), (other, False), (None, False)):
            pair = issuer.issue("client") if issuer else None
            own = (pair.key, pair.certificate) if pair else (None, None)
            credentials = grpc.ssl_channel_credentials(authority.certificate, *own)
            if comes_in:
                assert await is_administrator(server.address, server.admin_key, credentials)
                assert await is_serving(server.inference_address, credentials)
            else:
                await refused(server.address, server.admin_key, credentials)
                assert not await is_serving(server.inference_address, credentials)


def test_files_that_do_not_fit_together_stop_the_start(tmp_path: Path) -> None:
    authority = Authority("authority")
    certificate, key = authority.issue("one").write(tmp_path, "one")
    _, other = authority.issue("two").write(tmp_path, "two")
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("rubbish")
    for files, said in (
        (TlsFiles(certificate=certificate, key=other, client_ca=None), "is not that of the certificate"),
        (TlsFiles(certificate=rubbish, key=key, client_ca=None), "holds no certificate"),
        (TlsFiles(certificate=certificate, key=rubbish, client_ca=None), "holds no private key"),
        (TlsFiles(certificate=certificate, key=key, client_ca=rubbish), "holds no certificate"),
        (TlsFiles(certificate=certificate, key=tmp_path / "absent", client_ca=None), "cannot read"),
    ):
        with pytest.raises(BadCertificate, match=said):
            files.credentials()


@pytest.mark.parametrize("listen", ["0.0.0.0:7443", "[::]:7443", "192.0.2.1:7443", "example.org:7443"])
def test_where_other_machines_can_connect_the_server_does_not_speak_in_clear_unless_told(listen: str) -> None:
    with pytest.raises(ValidationError, match="keys would pass in clear"):
        Settings(listen=listen)
    assert Settings(listen=listen, listen_in_clear=True).listen == listen
    assert Settings(listen=listen, tls_certificate_file="server.pem", tls_key_file="server.key").listen == listen


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:7443", "localhost:7443", "127.9.9.9:1"])
def test_on_its_own_machine_it_does(listen: str) -> None:
    assert TlsFiles.from_settings(Settings(listen=listen)) is None


def test_settings_of_tls_that_need_each_other_are_told() -> None:
    for alone in ("tls_certificate_file", "tls_key_file", "tls_client_ca_file"):
        with pytest.raises(ValidationError, match="BLOBHUB_TLS_CERTIFICATE_FILE"):
            Settings(**{alone: "a.pem"})
