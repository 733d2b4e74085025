"""Verifies tokens of an OpenID Connect issuer, given the issuer's keys and the time.

A token is a JWT (RFC 7519) signed with a key that the issuer publishes. Whatever is wrong with it, the answer is
Unauthenticated and nothing more.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from blobhub_server.errors import Unauthenticated

RSA, P256, P384, P521, ED25519 = ("RSA", None), ("EC", "P-256"), ("EC", "P-384"), ("EC", "P-521"), ("OKP", "Ed25519")
KINDS: Mapping[str, tuple[str, str | None]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), RSA),
    "ES256": P256,
    "ES384": P384,
    "ES512": P521,
    "EdDSA": ED25519,
}
"""The supported algorithms, each with type and curve of its keys. None of them uses a shared secret."""

MAX_TOKEN_LENGTH = 16384
LEEWAY_SECONDS = 5
"""How far the issuer's clock may be ahead. Expiry has no leeway."""

_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_TYPES = ("jwt", "at+jwt")
_PUBLIC = ("kty", "crv", "n", "e", "x", "y")
_MAX_SECONDS = 253_402_300_800  # the year 10000, beyond what a datetime holds


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """What a token has to match exactly. `algorithms` are keys of KINDS."""

    issuer: str
    audience: str
    algorithms: Sequence[str]


@dataclass(frozen=True, slots=True)
class Key:
    """One of the issuer's keys to verify with. `algorithm` is the only one it is for, where the issuer says so."""

    kid: str | None
    kind: tuple[str, str | None]
    algorithm: str | None
    public: Any


@dataclass(frozen=True, slots=True)
class Header:
    """What a token says about its signature; not verified."""

    algorithm: str
    kid: str | None


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a verified token: the subject, their display name (may be empty), and when the token expires."""

    subject: str
    display_name: str
    ends: datetime


def has_form(bearer: str) -> bool:
    """Whether a text has the form of a token: three parts in base64url."""
    return _FORM.fullmatch(bearer) is not None


def header(token: str, policy: TokenPolicy) -> Header:
    """The header of a token. Raises Unauthenticated when the policy excludes it."""
    import jwt  # noqa: PLC0415  slow to import, and not needed without an issuer

    if len(token) > MAX_TOKEN_LENGTH or not has_form(token):
        raise Unauthenticated
    try:
        found = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        raise Unauthenticated from None
    algorithm, kid, typ = found.get("alg"), found.get("kid"), found.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in policy.algorithms:
        raise Unauthenticated
    if not isinstance(typ, str) or typ.lower().removeprefix("application/") not in _TYPES:
        raise Unauthenticated
    return Header(algorithm, kid)


def verify(token: str, key: Key, header: Header, policy: TokenPolicy, now: datetime) -> Claims:
    """Verify signature, issuer, audience and times; return the claims. Raises Unauthenticated."""
    import jwt  # noqa: PLC0415  slow to import, and not needed without an issuer

    try:
        found = jwt.decode(
            token,
            key.public,
            algorithms=[header.algorithm],
            issuer=policy.issuer,
            audience=policy.audience,
            options={
                "require": ["iss", "aud", "exp", "sub"],
                "enforce_minimum_key_length": True,
                # Times are checked below, by our own clock.
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
    except jwt.PyJWTError:
        raise Unauthenticated from None
    begins = max(_seconds(found.get(name, 0)) for name in ("nbf", "iat"))
    ends = _seconds(found["exp"])
    if not begins - LEEWAY_SECONDS <= now.timestamp() < ends:
        raise Unauthenticated
    return Claims(subject=_subject(found["sub"]), display_name=_display_name(found), ends=datetime.fromtimestamp(ends, UTC))


def keys(document: bytes) -> list[Key]:
    """The keys in a JWK set (RFC 7517) that signatures can be verified with; others are skipped.

    Raises ValueError when it is no JWK set.
    """
    try:
        listed = json.loads(document)["keys"]
    except (KeyError, TypeError, RecursionError):
        raise ValueError("not a JWK set") from None
    if not isinstance(listed, list):
        raise ValueError("not a JWK set")
    read = (_key(item) for item in listed if isinstance(item, dict))
    return [key for key in read if key is not None]


def choose(keys: Iterable[Key], header: Header) -> Key | None:
    """The key that a token is signed with: the one of its `kid`, or, without a `kid`, the only one that fits."""
    fitting = [
        key
        for key in keys
        if key.kind == KINDS[header.algorithm]
        and key.algorithm in (None, header.algorithm)
        and header.kid in (None, key.kid)
    ]
    return fitting[0] if len(fitting) == 1 else None


def user_name(issuer: str, subject: str) -> str:
    """The name of the user whom an issuer calls `subject`."""
    return "oidc-" + hashlib.sha256(f"{issuer}\n{subject}".encode()).hexdigest()[:16]


def _key(jwk: Mapping[str, Any]) -> Key | None:
    import jwt  # noqa: PLC0415  slow to import, and not needed without an issuer

    kid = jwk.get("kid")
    kind = next((kind for kind in KINDS.values() if kind == (jwk.get("kty"), jwk.get("crv"))), None)
    operations = jwk.get("key_ops", ["verify"])
    if kind is None or jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        # Only the public members, so that a private key published by mistake is not used.
        public = jwt.PyJWK({name: jwk[name] for name in _PUBLIC if name in jwk}).key
    except jwt.PyJWTError:
        return None
    return Key(kid=kid if isinstance(kid, str) else None, kind=kind, algorithm=jwk.get("alg"), public=public)


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value < _MAX_SECONDS:
        raise Unauthenticated
    return value


def _subject(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 255 or not value.isprintable():
        raise Unauthenticated
    return value


def _display_name(claims: Mapping[str, Any]) -> str:
    said = next((claims[name] for name in ("name", "preferred_username") if isinstance(claims.get(name), str)), "")
    return "".join(character for character in said if character.isprintable())[:128]
