"""An OpenID Connect issuer to test against: keys of every kind, tokens, and a JWK set over HTTP."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from blobhub_server.platform.admission import jwks as keeping
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from marked import planted

ISSUER, AUDIENCE = "https://issuer.example", "blobhub"
ALL = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


@cache
def private_key(algorithm: str) -> Any:
    """A key to sign with, made once a run."""
    curves = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
    if algorithm in curves:
        return ec.generate_private_key(curves[algorithm]())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa_key(0)


@cache
def rsa_key(number: int, bits: int = 2048) -> rsa.RSAPrivateKey:
    """An RSA key, which serves every RSA algorithm; another for another number."""
    return rsa.generate_private_key(65537, bits)


def jwk(kid: str | None, algorithm: str, key: Any, **fields: object) -> dict[str, object]:
    """The public half of a key, as an issuer publishes it."""
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**made, "use": "sig", **({} if kid is None else {"kid": kid}), **fields}


def encoded(part: object) -> str:
    """A token's part."""
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(subject: str = "kim", **changed: object) -> dict[str, object]:
    """The claims of a token that holds for ten minutes; a claim given as None is left out."""
    now = time.time()
    made = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 600} | changed
    return {name: value for name, value in made.items() if value is not None}


def signed(key: Any, algorithm: str, kid: str | None, payload: dict[str, object] | None = None, **header: object) -> str:
    """A token. What the header says can be changed; a parameter given as None is left out."""
    head = {"alg": algorithm, "typ": "JWT", "kid": kid} | header
    parts = [{name: value for name, value in head.items() if value is not None}, claims() if payload is None else payload]
    signing = ".".join(encoded(part) for part in parts)
    method = jwt.get_algorithm_by_name(algorithm)
    signature = encoded(method.sign(signing.encode(), method.prepare_key(key)))
    planted(signature[-40:], "the end of a token")
    return f"{signing}.{signature}"


def key_set(keys: Mapping[str, tuple[str, Any]]) -> bytes:
    """A JWK set of keys by kid, each with its algorithm."""
    return json.dumps({"keys": [jwk(kid, *of) for kid, of in keys.items()]}).encode()


SERVED = {
    "rs": ("RS256", private_key("RS256")),
    "es": ("ES256", private_key("ES256")),
    "ed": ("EdDSA", private_key("EdDSA")),
}
"""Keys to serve, by kid."""

RS, ES = SERVED["rs"][1], SERVED["es"][1]
DOCUMENT = key_set(SERVED)
VALID = signed(ES, "ES256", "es", claims(exp=time.time() + 86_400))

PUBLIC_PEM = RS.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def hmac_signed(secret: bytes, kid: str) -> str:
    """HS256 over a public key's bytes, which PyJWT itself refuses to make."""
    signing = f"{encoded({'alg': 'HS256', 'typ': 'JWT', 'kid': kid})}.{encoded(claims())}"
    return f"{signing}.{encoded(hmac.new(secret, signing.encode(), hashlib.sha256).digest())}"


WRONG: dict[str, Callable[[], str]] = {
    "issuer": lambda: signed(RS, "RS256", "rs", claims(iss="https://other.example")),
    "issuer with a slash more": lambda: signed(RS, "RS256", "rs", claims(iss=ISSUER + "/")),
    "no issuer": lambda: signed(RS, "RS256", "rs", claims(iss=None)),
    "audience": lambda: signed(RS, "RS256", "rs", claims(aud="other")),
    "audiences": lambda: signed(RS, "RS256", "rs", claims(aud=["blobhub2", "blob"])),
    "audience in part": lambda: signed(RS, "RS256", "rs", claims(aud="blobhub ")),
    "no audience": lambda: signed(RS, "RS256", "rs", claims(aud=None)),
    "another's signature": lambda: signed(rsa_key(1), "RS256", "rs"),
    "another algorithm's signature": lambda: signed(RS, "RS512", "rs", alg="RS256"),
    "algorithm none": lambda: signed(None, "none", "rs"),
    "algorithm none, with a signature": lambda: signed(RS, "RS256", "rs", alg="none"),
    "algorithm none, spelled otherwise": lambda: signed(RS, "RS256", "rs", alg="nOnE"),
    "HS256 with the public key": lambda: hmac_signed(PUBLIC_PEM, "rs"),
    "HS256 with the published key": lambda: hmac_signed(DOCUMENT, "rs"),
    "ES256 with an RSA key": lambda: signed(ES, "ES256", "rs"),
    "RS256 with an EC key": lambda: signed(RS, "RS256", "es"),
    "ES384 with a P-256 key": lambda: signed(private_key("ES384"), "ES384", "es"),
    "no algorithm": lambda: signed(RS, "RS256", "rs", alg=None),
    "algorithm of another type": lambda: signed(RS, "RS256", "rs", alg=["RS256"]),
    "unknown kid": lambda: signed(RS, "RS256", "other"),
    "kid of another type": lambda: signed(RS, "RS256", 7),
    "another kind of token": lambda: signed(RS, "RS256", "rs", typ="logout+jwt"),
    "kind of another type": lambda: signed(RS, "RS256", "rs", typ=7),
    "critical header": lambda: signed(RS, "RS256", "rs", crit=["exp"]),
    "expired": lambda: signed(RS, "RS256", "rs", claims(exp=time.time() - 0.1)),
    "no end": lambda: signed(RS, "RS256", "rs", claims(exp=None)),
    "an end that is no number": lambda: signed(RS, "RS256", "rs", claims(exp="4102444800")),
    "an end that is no time": lambda: signed(RS, "RS256", "rs", claims(exp=1e300)),
    "an endless end": lambda: signed(RS, "RS256", "rs", claims(exp=float("inf"))),
    "an end that is true": lambda: signed(RS, "RS256", "rs", claims(exp=True)),
    "not valid yet": lambda: signed(RS, "RS256", "rs", claims(nbf=time.time() + 60)),
    "a beginning that is no number": lambda: signed(RS, "RS256", "rs", claims(nbf="now")),
    "issued in the future": lambda: signed(RS, "RS256", "rs", claims(iat=time.time() + 60)),
    "no subject": lambda: signed(RS, "RS256", "rs", claims(sub=None)),
    "an empty subject": lambda: signed(RS, "RS256", "rs", claims(sub="")),
    "a long subject": lambda: signed(RS, "RS256", "rs", claims(sub="x" * 256)),
    "a subject with a NUL": lambda: signed(RS, "RS256", "rs", claims(sub="kim\0")),
    "a subject that is no text": lambda: signed(RS, "RS256", "rs", claims(sub="\ud800")),
    "a subject of another type": lambda: signed(RS, "RS256", "rs", claims(sub=7)),
    "claims that are a list": lambda: signed(RS, "RS256", "rs", [1]),
    "claims that are no JSON": lambda: signed(RS, "RS256", "rs", b"kim"),
    "a header that is a list": lambda: f"{encoded([1])}.{encoded(claims())}.{encoded(b'x')}",
    "a deep header": lambda: f"{encoded(b'[' * 10_000)}.{encoded(claims())}.{encoded(b'x')}",
    "a number of many digits": lambda: f"{encoded(b'9' * 8_000)}.{encoded(claims())}.{encoded(b'x')}",
    "longer than 16 KiB": lambda: signed(RS, "RS256", "rs", claims(padding="x" * 16_384)),
    "truncated": lambda: VALID[:-1],
    "without its signature": lambda: VALID.rpartition(".")[0] + ".",
    "padded": lambda: VALID + "==",
    "three dots": lambda: "a.b.c",
}
"""Tokens that are all wrong where SERVED is served, by what is wrong with them."""


class Issuer:
    """Serves its JWK set on a loopback port, in a thread, and counts how often it is asked.

    `keys` is by kid; `document` is served instead, when set; `status` is answered; `hold` lets no answer out while cleared.
    """

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str, Any]] = dict(SERVED)
        self.document: bytes | None = None
        self.status = 200
        self.headers: dict[str, str] = {}
        self.hold = threading.Event()
        self.hold.set()
        self.asked = 0
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        """Where the JWK set is."""
        return f"http://127.0.0.1:{self.port}/jwks"

    @property
    def settings(self) -> dict[str, object]:
        """Settings of a server that takes this issuer's tokens."""
        return {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_jwks": self.url}

    def token(self, kid: str = "rs", payload: dict[str, object] | None = None) -> str:
        """A token signed with one of the keys."""
        algorithm, key = self.keys[kid]
        return signed(key, algorithm, kid, payload)

    def start(self) -> None:
        """Serve, on the port it had before if there was one."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """Answer nobody any more."""
        self.hold.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _handler(issuer) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                issuer.hold.wait()
                self.send_response(issuer.status)
                for name, value in issuer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(issuer.document if issuer.document is not None else key_set(issuer.keys))

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An issuer that is up."""
    made = Issuer()
    yield made
    made.stop()


@pytest.fixture
def quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys may be read again at once."""
    monkeypatch.setattr(keeping, "MIN_INTERVAL_SECONDS", 0.0)
