"""The keys of an OpenID Connect issuer: when they are read, when not, and what a request that goes out may cost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from blobhub_server.errors import IssuerUnavailable, Unauthenticated
from blobhub_server.http.outbound.configured import fetch
from blobhub_server.http.outbound.message import OutboundError
from blobhub_server.platform.admission import jwks as keeping
from blobhub_server.platform.admission.jwks import Jwks, source_of
from blobhub_server.platform.rules.oidc import Header
from issuer import (
    DOCUMENT,
    ES,
    Issuer,
)
from waiting import DEADLINE_SECONDS, until, within_deadline

FIRST, SECOND = Header("RS256", "rs"), Header("ES256", "second")


async def test_keys_are_read_once_and_again_for_a_new_one(issuer: Issuer, quick_keys: None) -> None:
    kept = Jwks(source_of(issuer.url))
    await asyncio.gather(*(kept.key(FIRST) for _ in range(50)))
    assert issuer.asked == 1
    issuer.keys = {"second": ("ES256", ES)}
    await kept.key(FIRST)
    await asyncio.gather(*(kept.key(SECOND) for _ in range(50)))
    assert issuer.asked == 2
    with pytest.raises(Unauthenticated):
        await kept.key(FIRST)


async def test_old_keys_are_read_again_before_they_are_used(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, quick_keys: None
) -> None:
    monkeypatch.setattr(keeping, "MAX_AGE_SECONDS", 0.0)
    kept = Jwks(source_of(issuer.url))
    await kept.key(FIRST)
    issuer.keys = {"second": ("ES256", ES)}
    with pytest.raises(Unauthenticated):
        await kept.key(FIRST)


async def test_known_keys_go_on_when_the_issuer_is_down_hangs_or_talks_nonsense(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, quick_keys: None
) -> None:
    monkeypatch.setattr(keeping, "MAX_AGE_SECONDS", 0.0)
    monkeypatch.setattr(keeping, "READ_TIMEOUT_SECONDS", 2.0 * DEADLINE_SECONDS)  # nobody whose key is known waits for that
    kept = Jwks(source_of(issuer.url))
    await kept.key(FIRST)
    for document, status in ((b"<html>", 200), (b'{"keys": 1}', 200), (None, 503)):
        issuer.document, issuer.status = document, status
        await kept.key(FIRST)
    issuer.hold.clear()
    await within_deadline(asyncio.gather(*(kept.key(FIRST) for _ in range(50))))
    issuer.stop()
    await kept.key(FIRST)


async def test_without_any_key_the_issuer_is_unavailable_until_it_is_there(issuer: Issuer, quick_keys: None) -> None:
    issuer.stop()
    kept = Jwks(source_of(issuer.url))
    with pytest.raises(IssuerUnavailable):
        await kept.key(FIRST)
    issuer.start()
    await kept.key(FIRST)


async def test_a_caller_that_goes_away_does_not_interrupt_the_reading(issuer: Issuer) -> None:
    issuer.hold.clear()
    kept = Jwks(source_of(issuer.url))
    impatient = asyncio.create_task(kept.key(FIRST))
    await until(lambda: issuer.asked)
    patient = asyncio.create_task(kept.key(FIRST))
    impatient.cancel()
    issuer.hold.set()
    await patient
    assert issuer.asked == 1


async def test_keys_are_read_from_a_file_and_read_again(tmp_path: Path, quick_keys: None) -> None:
    path = tmp_path / "jwks.json"
    kept = Jwks(source_of(str(path)))
    with pytest.raises(IssuerUnavailable):
        await kept.key(Header("ES256", "es"))
    path.write_bytes(DOCUMENT)
    await kept.key(Header("ES256", "es"))


# Requests that go out


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/jwks",
        "http://localhost/jwks",
        "http://127.0.0.1.issuer.example/",
        "http://10.0.0.1/",
        "http://169.254.169.254/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "https://",
        "https://[::1/",
        "https://issuer.example:port/",
        "",
    ],
)
async def test_only_tls_or_this_machine_is_asked(url: str) -> None:
    with pytest.raises(OutboundError) as raised:
        await fetch(url, max_bytes=10, timeout_seconds=1)
    assert "issuer" not in str(raised.value)


async def test_what_is_fetched_is_bounded_and_nothing_is_followed(issuer: Issuer) -> None:
    issuer.document = b"x" * 1000
    assert await fetch(issuer.url, max_bytes=1000, timeout_seconds=5) == issuer.document
    with pytest.raises(OutboundError, match="longer than 999"):
        await fetch(issuer.url, max_bytes=999, timeout_seconds=5)
    issuer.headers, issuer.status = {"location": issuer.url + "/elsewhere"}, 302
    with pytest.raises(OutboundError, match="302"):
        await fetch(issuer.url, max_bytes=1000, timeout_seconds=5)
    issuer.hold.clear()
    with pytest.raises(OutboundError):
        await fetch(issuer.url, max_bytes=1000, timeout_seconds=0.2)
    issuer.stop()
    with pytest.raises(OutboundError, match="accepts no connection"):
        await fetch(issuer.url, max_bytes=1000, timeout_seconds=5)
