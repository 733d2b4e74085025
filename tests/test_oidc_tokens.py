"""Which tokens of an OpenID Connect issuer hold, and which do not."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from blobhub_server.errors import Unauthenticated
from blobhub_server.platform.rules import oidc as rules
from blobhub_server.platform.rules.oidc import Claims, TokenPolicy
from hypothesis import given
from hypothesis import strategies as st
from issuer import (
    ALL,
    AUDIENCE,
    DOCUMENT,
    ES,
    ISSUER,
    RS,
    VALID,
    WRONG,
    claims,
    encoded,
    jwk,
    key_set,
    private_key,
    rsa_key,
    signed,
)

POLICY = TokenPolicy(issuer=ISSUER, audience=AUDIENCE, algorithms=ALL)
KEYS = rules.keys(DOCUMENT)


def judged(token: str, *, keys=KEYS, policy: TokenPolicy = POLICY, now: datetime | None = None) -> Claims:
    """What a token says, or Unauthenticated."""
    header = rules.header(token, policy)
    key = rules.choose(keys, header)
    if key is None:
        raise Unauthenticated
    return rules.verify(token, key, header, policy, now or datetime.now(UTC))


@pytest.mark.parametrize("algorithm", ALL)
def test_a_token_of_each_algorithm_holds(algorithm: str) -> None:
    key = private_key(algorithm)
    keys = rules.keys(key_set({"k": (algorithm, key)}))
    found = judged(signed(key, algorithm, "k", claims("kim", name="Kim")), keys=keys)
    assert (found.subject, found.display_name) == ("kim", "Kim")
    others = TokenPolicy(issuer=ISSUER, audience=AUDIENCE, algorithms=[name for name in ALL if name != algorithm])
    with pytest.raises(Unauthenticated):
        judged(signed(key, algorithm, "k"), keys=keys, policy=others)


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_token_is_refused_and_not_told_why(what: str) -> None:
    with pytest.raises(Unauthenticated) as raised:
        judged(WRONG[what]())
    assert raised.value.__dict__ == Unauthenticated().__dict__
    assert raised.value.__cause__ is None


@given(st.integers(0, len(VALID) - 1), st.integers(0, 7))
def test_a_token_with_any_bit_flipped_is_refused(place: int, bit: int) -> None:
    flipped = VALID[:place] + chr(ord(VALID[place]) ^ 1 << bit) + VALID[place + 1 :]
    with pytest.raises(Unauthenticated):
        judged(flipped)


@given(st.text(max_size=60) | st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_whatever_a_header_or_claim_is_a_token_holds_or_is_refused(value: object) -> None:
    for name in ("alg", "kid", "typ", "crit", "b64"):
        token = f"{encoded({'alg': 'ES256', 'kid': 'es'} | {name: value})}.{encoded(claims())}.{encoded(b'x' * 64)}"
        with pytest.raises(Unauthenticated):
            judged(token)
    for name in ("iss", "aud", "exp", "nbf", "iat", "jti", "sub", "name"):
        with suppress(Unauthenticated):
            judged(signed(ES, "ES256", "es", claims() | {name: value}))


def test_clocks_may_differ_a_little_and_an_end_is_an_end() -> None:
    now = datetime.fromtimestamp(1_800_000_000, UTC)
    at = now.timestamp()
    for ahead in ({"nbf": at + 5}, {"iat": at + 5}):
        assert judged(signed(RS, "RS256", "rs", claims(**{"iat": at, "exp": at + 60} | ahead)), now=now).subject == "kim"
    for wrong in ({"nbf": at + 5.1}, {"iat": at + 5.1}, {"exp": at}):
        with pytest.raises(Unauthenticated):
            judged(signed(RS, "RS256", "rs", claims(**{"iat": at, "exp": at + 60} | wrong)), now=now)
    ends = judged(signed(RS, "RS256", "rs", claims(iat=at, exp=at + 0.5)), now=now).ends
    assert ends.timestamp() == at + 0.5


def test_one_of_several_audiences_and_an_access_tokens_type_will_do() -> None:
    judged(signed(RS, "RS256", "rs", claims(aud=["other", AUDIENCE])))
    for typ in ("at+jwt", "application/AT+JWT", "jwt", None):
        judged(signed(RS, "RS256", "rs", typ=typ))


def test_a_token_without_kid_needs_the_only_key_that_fits() -> None:
    judged(signed(RS, "RS256", None))
    two = rules.keys(json.dumps({"keys": [jwk("rs", "RS256", RS), jwk("more", "RS256", rsa_key(1))]}).encode())
    with pytest.raises(Unauthenticated):
        judged(signed(RS, "RS256", None), keys=two)
    judged(signed(RS, "RS256", "rs"), keys=two)


@pytest.mark.parametrize(
    "fields",
    [
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"key_ops": "verify"},
        {"alg": "PS256"},
        {"alg": "HS256"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": ["RSA"]},
        {"kty": "EC"},
        {"crv": "P-256"},
        {"n": "!"},
        {"n": None},
    ],
)
def test_a_key_that_is_for_something_else_is_not_used(fields: dict[str, object]) -> None:
    document = json.dumps({"keys": [jwk("rs", "RS256", RS, **fields), "nonsense", jwk("es", "ES256", ES)]}).encode()
    keys = rules.keys(document)
    judged(VALID, keys=keys)
    with pytest.raises(Unauthenticated):
        judged(signed(RS, "RS256", "rs"), keys=keys)


def test_a_short_rsa_key_is_not_trusted() -> None:
    weak = rsa_key(2, 1024)
    with pytest.raises(Unauthenticated):
        judged(signed(weak, "RS256", "k"), keys=rules.keys(key_set({"k": ("RS256", weak)})))


@pytest.mark.parametrize("document", [b"", b"<html>", b"[]", b"{}", b'{"keys": 1}', b"[" * 100_000, b"\xff"])
def test_what_is_no_key_set_is_told(document: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the reader's only one
        rules.keys(document)


def test_a_name_for_display_is_cut_and_cleaned() -> None:
    def display(**said: object) -> str:
        return judged(signed(RS, "RS256", "rs", claims(**said))).display_name

    assert display(preferred_username="kim", name="Kim\n\x1b[31m Lee\ud800") == "Kim[31m Lee"
    assert display(preferred_username="kim") == "kim"
    assert display(name=["Kim"], preferred_username=7) == ""
    assert display(name="x" * 200) == "x" * 128
