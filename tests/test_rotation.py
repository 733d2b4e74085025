"""Changing the master key: everything stays readable, also when it is killed at any point and run again."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import signal
import stat
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import forked
import marked
import pytest
from blobhub.v1 import organization_pb2
from blobhub_server.clock import utc_now
from blobhub_server.config import Settings
from blobhub_server.db.engine import Database
from blobhub_server.db.migrations import migrate
from blobhub_server.db.opening import open_database
from blobhub_server.errors import MasterKeyMissing
from blobhub_server.ids import Uuid7
from blobhub_server.platform.rules.credential import Credential, encode
from blobhub_server.platform.rules.organization import Organization
from blobhub_server.platform.rules.visibility import PRIVATE
from blobhub_server.platform.sealing.credentials import Credentials
from blobhub_server.platform.sealing.key_file import KeyFile
from blobhub_server.platform.sealing.keyring import Keyring, load
from blobhub_server.platform.sealing.rotation import MAX_BATCH, adopt, rotate
from blobhub_server.platform.store import credential as store
from blobhub_server.platform.store import organization as organization_store
from blobhub_server.start import StartError
from forked import Forked
from scale import scaled
from served import connected, served
from waiting import DEADLINE_SECONDS

OLD, NEW, OTHER = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2, 3))
ORG = "0190a000-0000-7000-8000-000000000001"

HARNESS = """
import asyncio, itertools, os, signal, sys
from blobhub_server.config import Settings
from blobhub_server.db.engine import Transaction
from blobhub_server.platform.sealing.key_file import KeyFile
from blobhub_server.platform.sealing.rotation import rotate
from blobhub_server.platform.store import credential, master_key

settings = Settings()

def dying(owner, name, left):
    function = getattr(owner, name)
    def counted(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    setattr(owner, name, counted)

def run(step):
    pid = os.fork()
    if pid == 0:
        left = [step]
        for owner, name in ((os, "fsync"), (os, "replace"), (Transaction, "run_hooks"), (master_key, "change"),
                            (credential, "page_by_master_key"), (credential, "rewrap")):
            dying(owner, name, left)
        asyncio.run(rotate(settings, os.urandom))
        os._exit(0)
    return os.waitpid(pid, 0)[1]

for step in itertools.count(1):
    status = run(step)
    if status == 0:
        break
    assert status == signal.SIGKILL, status
    if step % 2:
        assert run(step // 2 + 1) in (0, signal.SIGKILL)
    left = KeyFile(settings.key_file).read()
    assert run(0) == 0
    done = KeyFile(settings.key_file).read()
    assert len(done) == 1
    assert len(left) == 1 or done == left[:1], "the interrupted rotation is finished, and no other begun"
print(step - 1)
"""


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=database_url)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Database, Keyring, Credentials]]:
    """What a server has of its credentials once it has started."""
    db = await open_database(settings.url)
    try:
        await migrate(settings.url, ())
        ring = load(settings, os.urandom)
        await adopt(db, ring)
        yield db, ring, Credentials(db, ring)
    finally:
        await db.close()


async def fill(settings: Settings, count: int) -> dict[str, str]:
    """Store an organization and credentials of it; return secrets by alias."""
    ids, now, secrets = Uuid7(), utc_now(), {}
    organization = Organization(
        id=ORG,
        alias="acme",
        description="",
        visibility=PRIVATE,
        blob_count=0,
        create_time=now,
        update_time=now,
        etag=ids(),
    )
    async with opened(settings) as (db, _, credentials), db.write() as tx:
        await organization_store.insert(tx, organization, ids())
        for number in range(count):
            record = Credential(
                id=ids(),
                user_id=None,
                organization_id=ORG,
                blob_id=None,
                alias=f"alias-{number}",
                type="test",
                description="",
                create_time=now,
                update_time=now,
                etag=ids(),
            )
            secrets[record.alias] = marked.secret(record.alias)
            await store.insert(tx, record, await credentials.seal(tx, record, encode({"key": secrets[record.alias]})))
    return secrets


async def check(settings: Settings, secrets: dict[str, str]) -> Keyring:
    """Everything reads as it was stored, and is under the current key."""
    async with opened(settings) as (db, ring, credentials):
        for alias, secret in secrets.items():
            assert await credentials.use(ORG, "", alias) == {"key": secret}
        async with db.read() as tx:
            assert await store.master_key_ids(tx) == ({ring.current} if secrets else set())
    return ring


def keys_of(settings: Settings) -> list[str]:
    assert stat.S_IMODE(settings.key_file.stat().st_mode) == 0o600
    return settings.key_file.read_text().split()


async def test_a_key_file_gets_a_new_key_and_loses_the_old_one(settings: Settings) -> None:
    secrets = await fill(settings, 2 * MAX_BATCH + 1)
    (before,) = keys_of(settings)
    lines = await rotate(settings, os.urandom)
    (after,) = keys_of(settings)
    assert before != after
    ring = await check(settings, secrets)
    assert f"The master key is {ring.current}. Credentials brought under it: {len(secrets)}." in lines
    assert not any(key in line for line in lines for key in (before, after))


async def test_a_request_is_answered_again_across_a_rotation(tmp_path: Path) -> None:
    """What tells its body from another was made with a key that is gone."""
    request = organization_pb2.CreateOrganizationRequest(alias="acme", request_id=str(uuid.uuid4()))
    async with served(tmp_path) as server, connected(server.address, server.admin_key) as api:
        first, settings = await api.organizations.CreateOrganization(request), server.settings
    await rotate(settings, os.urandom)
    async with served(tmp_path) as again, connected(again.address, server.admin_key) as api:
        assert await api.organizations.CreateOrganization(request) == first


async def test_a_server_that_missed_a_rotation_says_what_it_lacks(settings: Settings) -> None:
    """Neither storing nor using is an internal error, and nothing is taken for damaged."""
    await fill(settings, 1)
    old = load(settings, os.urandom)
    await rotate(settings, os.urandom)
    db = await open_database(settings.url)
    with pytest.raises(MasterKeyMissing) as raised:
        await Credentials(db, old).use(ORG, ORG, "alias-0")
    assert raised.value.metadata["master_key_id"] == load(settings, os.urandom).current
    await db.close()


async def test_keys_in_the_environment_are_changed_by_putting_a_new_one_first(settings: Settings) -> None:
    one, both, new = (
        settings.model_copy(update={"master_key": value}) for value in secret_strings(OLD, f"{NEW},{OLD}", NEW)
    )
    secrets = await fill(one, 3)
    assert "in front of" in (await rotate(one, os.urandom))[1]
    lines = await rotate(both, os.urandom)
    assert "3." in lines[0]
    assert "take what follows the first key out" in lines[1]
    assert not any(key in line for line in lines for key in (OLD, NEW))
    await check(new, secrets)
    assert not settings.key_file.exists()
    with pytest.raises(StartError, match="not given"):
        await check(one, secrets)


def secret_strings(*keys: str) -> list:
    return [Settings(master_key=key).master_key for key in keys]


async def test_a_server_without_the_right_keys_does_not_start_and_names_fingerprints_only(settings: Settings) -> None:
    secrets = await fill(settings, 1)
    ring = await check(settings, secrets)
    (wrong,) = secret_strings(OTHER)
    for starting in (settings.model_copy(update={"master_key": wrong}),):
        with pytest.raises(StartError, match=ring.current) as refused:
            await check(starting, secrets)
        assert OTHER not in str(refused.value)
        assert keys_of(settings)[0] not in str(refused.value)
    await check(settings, secrets)


async def test_a_second_server_with_a_key_of_its_own_does_not_start_even_before_anything_is_sealed(
    settings: Settings, tmp_path: Path
) -> None:
    first = await check(settings, {})
    with pytest.raises(StartError, match=first.current):
        await check(settings.model_copy(update={"data_dir": tmp_path / "elsewhere"}), {})


async def test_a_running_server_never_seals_under_a_key_that_was_rotated_away(settings: Settings) -> None:
    one, both = (settings.model_copy(update={"master_key": value}) for value in secret_strings(OLD, f"{OLD} {NEW}"))
    async with opened(both) as (db, ring, having_both):
        having_one = Credentials(db, load(one, os.urandom))
        await adopt(db, Keyring([base64.b64decode(key) for key in (NEW, OLD)], os.urandom))
        now = utc_now()
        record = Credential(
            id="id",
            user_id=None,
            organization_id=ORG,
            blob_id=None,
            alias="alias",
            type="test",
            description="",
            create_time=now,
            update_time=now,
            etag="etag",
        )
        async with db.write() as tx:
            with pytest.raises(MasterKeyMissing):
                await having_one.seal(tx, record, b"{}")
            sealed = await having_both.seal(tx, record, b"{}")
        assert sealed.master_key_id != ring.current


async def test_a_credential_that_cannot_be_read_keeps_the_old_key_until_it_is_gone(settings: Settings) -> None:
    secrets = await fill(settings, MAX_BATCH + 2)
    async with opened(settings) as (db, _, _), db.write() as tx:
        found = await store.find(tx, ORG, "alias-1")
        assert found is not None
        await tx.execute(store.credentials.update().where(store.credentials.c.id == found[0].id).values(wrapped_key=b"x"))
    with pytest.raises(StartError, match=f"1 credentials cannot be read.*{found[0].id}"):
        await rotate(settings, os.urandom)
    assert len(keys_of(settings)) == 2
    async with opened(settings) as (db, _, _), db.write() as tx:
        await store.delete(tx, found[0].id)
    await rotate(settings, os.urandom)
    assert len(keys_of(settings)) == 1
    del secrets["alias-1"]
    await check(settings, secrets)


async def test_there_is_nothing_to_rotate_before_the_first_start(settings: Settings) -> None:
    with pytest.raises(StartError, match="no master key file"):
        await rotate(settings, os.urandom)


def environment(settings: Settings) -> dict[str, str]:
    return os.environ | {"BLOBHUB_DATA_DIR": str(settings.data_dir), "BLOBHUB_DATABASE_URL": settings.url}


async def test_killed_before_every_step_and_run_again_it_loses_nothing(settings: Settings) -> None:
    secrets = await fill(settings, 2 * MAX_BATCH + 1)
    command = [sys.executable, "-c", HARNESS]
    ran = await asyncio.to_thread(subprocess.run, command, env=environment(settings), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) >= 15, "it was killed at fewer points than it has"
    await check(settings, secrets)
    assert len(keys_of(settings)) == 1
    assert KeyFile(settings.key_file).path.with_name("master-key.new").exists() is False


async def test_the_command_killed_at_random_and_run_again_loses_nothing(settings: Settings) -> None:
    dice = random.Random(20261124)
    secrets = await fill(settings, 5 * MAX_BATCH)
    for _ in range(scaled(5, least=2)):
        rotating = Forked([forked.COMMAND, "rotate-master-key"], environment(settings))
        with rotating.stdout:
            await asyncio.sleep(0.5 * dice.random())
            rotating.send_signal(signal.SIGKILL)
        rotating.wait(DEADLINE_SECONDS)
        await check_started(settings, secrets)
    ran = await asyncio.to_thread(forked.run, "rotate-master-key", env=environment(settings))
    assert ran.returncode == 0, ran.stderr
    ring = await check(settings, secrets)
    assert ran.stdout.startswith(f"The master key is {ring.current}. ")
    (key,) = keys_of(settings)
    assert key not in ran.stdout + ran.stderr


async def check_started(settings: Settings, secrets: dict[str, str]) -> None:
    """A server can start wherever a rotation was interrupted, and reads everything."""
    async with opened(settings) as (_, _, credentials):
        for alias, secret in secrets.items():
            assert await credentials.use(ORG, "", alias) == {"key": secret}
