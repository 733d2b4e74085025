"""Rotation of the master key: everything is sealed under the current key, and then the others can be removed.

It can be interrupted at any point and run again. A key is removed from the key file only when nothing is sealed under it. A
key file with several keys shows that a rotation was interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence

from blobhub_server.config import Settings
from blobhub_server.db.engine import Database
from blobhub_server.db.migrations import migrate
from blobhub_server.db.opening import open_database
from blobhub_server.platform.sealing import keyring as keyrings
from blobhub_server.platform.sealing.key_file import KEY_BYTES, KeyFile
from blobhub_server.platform.sealing.keyring import Entropy, Keyring, Unreadable
from blobhub_server.platform.store import credential as store
from blobhub_server.platform.store import master_key as master_key_store
from blobhub_server.start import StartError

MAX_BATCH = 100
_MAX_NAMED = 10


async def adopt(db: Database, keyring: Keyring) -> None:
    """Make a keyring's current key the one that new bodies are sealed under.

    Raises StartError when the keyring lacks a key that something is sealed under, or that other servers use.
    """
    async with db.write() as tx:
        in_use = {await master_key_store.register(tx, keyring.current), *await store.master_key_ids(tx)}
        missing = sorted(in_use - keyring.ids)
        if missing:
            raise StartError(
                f"credentials in this database are sealed under master keys that are not given: {', '.join(missing)}; "
                f"given are {', '.join(sorted(keyring.ids))}. See BLOBHUB_MASTER_KEY and BLOBHUB_MASTER_KEY_FILE"
            )
        await master_key_store.change(tx, keyring.current)


async def rotate(settings: Settings, entropy: Entropy) -> list[str]:
    """Change the master key; return what was done, in sentences. Raises StartError."""
    file = None if settings.master_key is not None else KeyFile(settings.key_file)
    if file is not None and file.read() is None:
        raise StartError(f"there is no master key file {file.path}; `blobhub-server serve` makes it")
    db = await open_database(settings.url)
    try:
        # Credentials are the platform's; the tables of types wait for the next start.
        await migrate(settings.url, ())
        if file is not None:
            return await _rotate_key_file(db, file, entropy)
        return await _rotate_environment(db, keyrings.load(settings, entropy))
    finally:
        await db.close()


async def _rotate_key_file(db: Database, file: KeyFile, entropy: Entropy) -> list[str]:
    with file.lock():
        keys = file.read() or []
        if len(keys) < 2:
            keys = [entropy(KEY_BYTES), *keys]
            file.replace(keys)
        keyring = Keyring(keys, entropy)
        count = await _rewrap_all(db, keyring)
        file.replace(keys[:1])
    return [_summary(count, keyring), f"{file.path} holds that key alone now. Backups made before need the former one."]


async def _rotate_environment(db: Database, keyring: Keyring) -> list[str]:
    count = await _rewrap_all(db, keyring)
    others = ", ".join(sorted(keyring.ids - {keyring.current}))
    if others:
        following = f"Nothing needs {others} any more: take what follows the first key out of BLOBHUB_MASTER_KEY."
    else:
        following = "To change it, put a new key in front of the one in BLOBHUB_MASTER_KEY, and run this again."
    return [_summary(count, keyring), following]


def _summary(count: int, keyring: Keyring) -> str:
    return f"The master key is {keyring.current}. Credentials brought under it: {count}."


async def _rewrap_all(db: Database, keyring: Keyring) -> int:
    """Reseal all credentials under the current key; return how many. Raises StartError."""
    await adopt(db, keyring)
    count, unreadable = 0, list[str]()
    for key_id in sorted(keyring.ids - {keyring.current}):
        last = ""
        while batch := await _rewrap(db, keyring, key_id, last):
            last = batch[-1][0]
            unreadable += [credential_id for credential_id, done in batch if not done]
            count += sum(done for _, done in batch)
    if unreadable:
        raise StartError(
            f"{len(unreadable)} credentials cannot be read and keep their master key: {', '.join(unreadable[:_MAX_NAMED])}; "
            "delete them, or restore them, and run this again"
        )
    return count


async def _rewrap(db: Database, keyring: Keyring, key_id: str, after: str) -> Sequence[tuple[str, bool]]:
    """Reseal the next batch under the current key; return their ids, and whether each could be read."""
    rewrapped, outcomes = [], []
    async with db.write() as tx:
        for credential, sealed in await store.page_by_master_key(tx, key_id, after=after, limit=MAX_BATCH):
            try:
                rewrapped.append((credential.id, keyring.rewrap(sealed, credential.identity)))
                outcomes.append((credential.id, True))
            except Unreadable:
                outcomes.append((credential.id, False))
        await store.rewrap(tx, rewrapped)
    return outcomes
