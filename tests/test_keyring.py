"""Sealing: what was sealed opens in its own place, and nowhere else, and not when any bit of it is another."""

from __future__ import annotations

import base64
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import marked
import pytest
from blobhub_server.clock import utc_now
from blobhub_server.config import Settings
from blobhub_server.errors import InvalidValue
from blobhub_server.platform.rules.credential import MAX_BODY_BYTES, Credential, SealedBody, encode
from blobhub_server.platform.sealing.key_file import BadMasterKey, KeyFile
from blobhub_server.platform.sealing.keyring import Keyring, Unreadable, fingerprint, load
from hypothesis import given
from hypothesis import strategies as st

OLD, NEW, OTHER = (bytes([number]) * 32 for number in (1, 2, 3))
SEALED_BYTES = ("key_nonce", "wrapped_key", "nonce", "ciphertext")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def keyring(*keys: bytes) -> Keyring:
    return Keyring(keys, os.urandom)


def record(**fields: str | None) -> Credential:
    now = utc_now()
    owner = {"user_id": None, "organization_id": "org", "blob_id": None} | fields
    return replace(
        Credential(
            id="id",
            user_id=None,
            organization_id=None,
            blob_id=None,
            alias="alias",
            type="type",
            description="",
            create_time=now,
            update_time=now,
            etag="etag",
        ),
        **owner,
    )


def seal(body: bytes, identity: bytes = b"[]", ring: Keyring | None = None) -> SealedBody:
    ring = ring or keyring(NEW, OLD)
    return ring.seal(body, identity, ring.current)


@given(st.dictionaries(st.text(), JSON, max_size=4), st.binary(max_size=64))
def test_what_is_sealed_opens_as_it_was_also_after_rewrapping(body: dict, identity: bytes) -> None:
    before = seal(encode(body), identity, keyring(OLD))
    assert json.loads(keyring(NEW, OLD).open(before, identity)) == body
    after = keyring(NEW, OLD).rewrap(before, identity)
    assert json.loads(keyring(NEW).open(after, identity)) == body
    assert (after.nonce, after.ciphertext) == (before.nonce, before.ciphertext)
    with pytest.raises(Unreadable):
        keyring(OLD).open(after, identity)


@pytest.mark.parametrize("name", SEALED_BYTES)
def test_no_bit_may_be_another(name: str) -> None:
    ring, sealed = keyring(NEW), seal(marked.secret("flipped").encode(), ring=keyring(NEW))
    data = getattr(sealed, name)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Unreadable):
            ring.open(replace(sealed, **{name: bytes(flipped)}), b"[]")


@pytest.mark.parametrize("name", SEALED_BYTES)
def test_no_byte_may_be_missing_or_too_many(name: str) -> None:
    sealed = seal(b"{}")
    data = getattr(sealed, name)
    for wrong in (b"", data[:7], data[:-1], data + b"\0"):
        with pytest.raises(Unreadable):
            keyring(NEW, OLD).open(replace(sealed, **{name: wrong}), b"[]")


def test_key_and_body_cannot_be_another_records() -> None:
    ring, mine, theirs = keyring(NEW), seal(b"{}", b"[1]", keyring(NEW)), seal(b"{}", b"[2]", keyring(NEW))
    key = {"key_nonce": theirs.key_nonce, "wrapped_key": theirs.wrapped_key}
    body = {"nonce": theirs.nonce, "ciphertext": theirs.ciphertext}
    for swapped in (key, body, key | body, {"nonce": theirs.key_nonce, "ciphertext": theirs.wrapped_key}):
        with pytest.raises(Unreadable):
            ring.open(replace(mine, **swapped), b"[1]")


def test_a_key_that_is_not_there_or_not_the_one_opens_nothing() -> None:
    sealed = seal(b"{}", ring=keyring(OLD))
    for ring, row in ((keyring(NEW), sealed), (keyring(NEW, OLD), replace(sealed, master_key_id=fingerprint(NEW)))):
        for act in (ring.open, ring.rewrap):
            with pytest.raises(Unreadable):
                act(row, b"[]")


def test_nothing_is_encrypted_twice_alike() -> None:
    first, second = seal(b"{}"), seal(b"{}")
    assert all(getattr(first, name) != getattr(second, name) for name in SEALED_BYTES)


def test_what_a_record_is_sealed_for_tells_it_from_all_others() -> None:
    identities = [
        record(),
        record(id="other"),
        record(organization_id="other"),
        record(organization_id=None, user_id="org"),
        record(blob_id="blob"),
        record(blob_id=""),
        record(alias="other"),
        record(type="other"),
        record(alias='alias","type'),
    ]
    assert len({item.identity for item in identities}) == len(identities)
    assert record(description="other", etag="other").identity == record().identity


def test_keys_for_other_purposes_differ_and_are_the_current_keys() -> None:
    ring = keyring(NEW, OLD)
    made = {*ring.derive_keys(b"one").values(), *ring.derive_keys(b"two").values(), NEW, OLD, bytes.fromhex(ring.current)}
    assert len(made) == 7
    assert ring.derive_keys(b"one")[ring.current] == keyring(NEW, OTHER).derive_keys(b"one")[ring.current]


def test_a_body_has_16_kib_and_finite_numbers() -> None:
    frame = len(encode({"key": ""}))
    assert len(encode({"key": "x" * (MAX_BODY_BYTES - frame)})) == MAX_BODY_BYTES
    bad = marked.secret("refused")
    for body in ({"key": "ü" * (MAX_BODY_BYTES // 2)}, {bad: float("nan")}, {"deep": [{bad: float("-inf")}]}):
        with pytest.raises(InvalidValue, match="body") as refused:
            encode(body)
        assert bad not in repr(refused.value) + str(refused.value)
        assert refused.value.__cause__ is None


def encoded(*keys: bytes, between: str = "\n") -> str:
    return between.join(base64.b64encode(key).decode() for key in keys)


def test_keys_come_from_the_environment_in_any_of_the_usual_forms(tmp_path: Path) -> None:
    for between in (",", " ", "\n", " ,\r\n\t"):
        ring = load(Settings(data_dir=tmp_path, master_key=f" {encoded(NEW, OLD, between=between)}\n"), os.urandom)
        assert (ring.current, ring.ids) == (fingerprint(NEW), {fingerprint(NEW), fingerprint(OLD)})
    assert list(tmp_path.iterdir()) == []


def test_the_first_start_makes_a_key_file_that_the_next_reads(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "new" / "data")
    made = load(settings, os.urandom)
    assert stat.S_IMODE(settings.key_file.stat().st_mode) == 0o600
    assert [path.name for path in settings.data_dir.iterdir()] == ["master-key"]
    assert load(settings, os.urandom).current == made.current
    assert len(base64.b64decode(settings.key_file.read_text())) == 32
    elsewhere = Settings(data_dir=tmp_path, master_key_file=settings.key_file)
    assert load(elsewhere, os.urandom).current == made.current


def test_what_an_interrupted_write_left_is_written_over(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "master-key")
    (tmp_path / "master-key.new").write_text("half")
    assert file.create(NEW) == [NEW]
    assert file.create(OTHER) == [NEW], "another server made it first"
    file.replace([OTHER, NEW])
    assert file.read() == [OTHER, NEW]
    assert [path.name for path in tmp_path.iterdir()] == ["master-key"]


def test_a_link_to_the_key_file_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    KeyFile(tmp_path / "real" / "master-key").create(NEW)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "master-key")
    KeyFile(tmp_path / "link").replace([OTHER])
    assert (tmp_path / "link").is_symlink()
    assert KeyFile(tmp_path / "real" / "master-key").read() == [OTHER]


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o602, 0o644, 0o666])
def test_a_key_file_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master-key"
    path.write_text(encoded(NEW))
    path.chmod(mode)
    with pytest.raises(BadMasterKey, match="chmod 600") as refused:
        load(Settings(data_dir=tmp_path), os.urandom)
    assert encoded(NEW) not in str(refused.value)


MALFORMED = ["", "\n \n", "short", encoded(NEW[:31]), encoded(NEW + b"x"), f"{encoded(NEW)}\n{encoded(OLD)[:-1]}", "é" * 44]


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_keys_are_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "master-key"
    path.write_text(text)
    path.chmod(0o600)
    for settings in (Settings(data_dir=tmp_path), Settings(data_dir=tmp_path, master_key=text)):
        with pytest.raises(BadMasterKey) as refused:
            load(settings, os.urandom)
        assert not any(word in str(refused.value) for word in text.split())
    assert path.read_text() == text


def test_a_key_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "master-key").mkdir()
    with pytest.raises(BadMasterKey, match="master-key"):
        load(Settings(data_dir=tmp_path), os.urandom)


def test_keys_are_in_no_representation() -> None:
    settings = Settings(master_key=encoded(NEW))
    for shown in (repr(settings), str(settings), settings.model_dump_json(), repr(keyring(NEW)), repr(vars(settings))):
        assert encoded(NEW) not in shown
