"""Encrypts credentials for the service, and decrypts them for what runs in a blob."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from blobhub_server.db.engine import Database, Transaction
from blobhub_server.errors import CredentialUnreadable, MasterKeyMissing, NotFound
from blobhub_server.platform.rules.credential import Credential, SealedBody
from blobhub_server.platform.sealing.keyring import Keyring, Unreadable
from blobhub_server.platform.store import credential as store
from blobhub_server.platform.store import master_key as master_key_store


class Credentials:
    """Implements `blobtypes.contract.Credentials`."""

    def __init__(self, db: Database, keyring: Keyring) -> None:
        self._db = db
        self._keyring = keyring

    async def use(self, organization_id: str, blob_id: str, alias: str) -> Mapping[str, Any]:
        async with self._db.read() as tx:
            found = await store.resolve(tx, organization_id, blob_id, alias)
        if found is None:
            raise NotFound("credential", alias)
        credential, sealed = found
        if credential.parent_id not in (blob_id, organization_id):
            raise CredentialUnreadable(credential.id)
        if sealed.master_key_id not in self._keyring.ids:
            raise MasterKeyMissing(sealed.master_key_id)
        try:
            body: Mapping[str, Any] = json.loads(self._keyring.open(sealed, credential.identity))
        except Unreadable:
            raise CredentialUnreadable(credential.id) from None
        return body

    async def seal(self, tx: Transaction, credential: Credential, body: bytes) -> SealedBody:
        """Seal a body for a record, in the transaction that stores it. Raises MasterKeyMissing.

        The master key is the database's current one and not the one this server started with: a body sealed under a key that
        is being rotated away would be lost with that key.
        """
        current = await master_key_store.current(tx)
        if current not in self._keyring.ids:
            raise MasterKeyMissing(current)
        return self._keyring.seal(body, credential.identity, current)
