"""The master keys, and sealing with them.

Every body is encrypted under a random key of its own, and that key is wrapped under a master key: both with AES-256-GCM and
random 96-bit nonces. Both are bound to the identity of their record, so that neither can be moved to another record.
Changing the master key wraps those keys anew and leaves the bodies as they are.

A master key itself encrypts nothing; the keys that do are derived from it, one for each purpose.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from blobhub_server.config import Settings
from blobhub_server.platform.rules.credential import SealedBody
from blobhub_server.platform.sealing import key_file
from blobhub_server.platform.sealing.key_file import KEY_BYTES, KeyFile

NONCE_BYTES = 12

Entropy = Callable[[int], bytes]


class Unreadable(Exception):
    """A sealed body cannot be opened: it was changed or moved to another record, or its master key is missing."""


class Keyring:
    """One or more master keys of 32 bytes. The first is the current one; the others only decrypt.

    A key's id is a fingerprint of it, 16 characters that tell nothing about the key.
    """

    def __init__(self, keys: Sequence[bytes], entropy: Entropy) -> None:
        self._keys = {fingerprint(key): key for key in keys}
        self._entropy = entropy
        self.current = fingerprint(keys[0])

    @property
    def ids(self) -> frozenset[str]:
        """The ids of all keys."""
        return frozenset(self._keys)

    def seal(self, body: bytes, identity: bytes, master_key_id: str) -> SealedBody:
        """Encrypt a body for the record of an identity, under one of the keys."""
        key = self._entropy(KEY_BYTES)
        key_nonce, wrapped_key = self._encrypt(self._wrapping_key(master_key_id), key, b"key", identity)
        nonce, ciphertext = self._encrypt(key, body, b"body", identity)
        return SealedBody(
            master_key_id=master_key_id, key_nonce=key_nonce, wrapped_key=wrapped_key, nonce=nonce, ciphertext=ciphertext
        )

    def open(self, sealed: SealedBody, identity: bytes) -> bytes:
        """The body. Raises Unreadable."""
        return _decrypt(self._unwrap(sealed, identity), sealed.nonce, sealed.ciphertext, b"body", identity)

    def rewrap(self, sealed: SealedBody, identity: bytes) -> SealedBody:
        """The same body, under the current key. Raises Unreadable."""
        key = self._unwrap(sealed, identity)
        key_nonce, wrapped_key = self._encrypt(self._wrapping_key(self.current), key, b"key", identity)
        return replace(sealed, master_key_id=self.current, key_nonce=key_nonce, wrapped_key=wrapped_key)

    def derive_keys(self, purpose: bytes) -> dict[str, bytes]:
        """A key of 32 bytes derived from each master key for a purpose, by the id of the master key."""
        return {key_id: _derive(key, b"derive", purpose) for key_id, key in self._keys.items()}

    def _unwrap(self, sealed: SealedBody, identity: bytes) -> bytes:
        if sealed.master_key_id not in self._keys:
            raise Unreadable
        return _decrypt(self._wrapping_key(sealed.master_key_id), sealed.key_nonce, sealed.wrapped_key, b"key", identity)

    def _wrapping_key(self, master_key_id: str) -> bytes:
        return _derive(self._keys[master_key_id], b"wrap")

    def _encrypt(self, key: bytes, data: bytes, part: bytes, identity: bytes) -> tuple[bytes, bytes]:
        nonce = self._entropy(NONCE_BYTES)
        return nonce, AESGCM(key).encrypt(nonce, data, part + identity)


def load(settings: Settings, entropy: Entropy) -> Keyring:
    """The keyring that the settings name; a key file is made where there is none. Raises StartError."""
    if settings.master_key is not None:
        return Keyring(key_file.parse(settings.master_key.get_secret_value(), "BLOBHUB_MASTER_KEY"), entropy)
    file = KeyFile(settings.key_file)
    return Keyring(file.read() or file.create(entropy(KEY_BYTES)), entropy)


def fingerprint(key: bytes) -> str:
    """A master key's id."""
    return _derive(key, b"fingerprint").hex()[:16]


def _derive(key: bytes, use: bytes, purpose: bytes = b"") -> bytes:
    return hmac.new(key, b"blobhub " + use + b"\0" + purpose, hashlib.sha256).digest()


def _decrypt(key: bytes, nonce: bytes, data: bytes, part: bytes, identity: bytes) -> bytes:
    if len(nonce) != NONCE_BYTES:
        raise Unreadable
    try:
        return AESGCM(key).decrypt(nonce, data, part + identity)
    except InvalidTag:
        raise Unreadable from None
