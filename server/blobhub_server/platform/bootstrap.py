"""The first start: an administrator, and the key that is shown once."""

from __future__ import annotations

from collections.abc import Callable

from blobhub_server.clock import Clock
from blobhub_server.db.engine import Database
from blobhub_server.ids import Ids
from blobhub_server.platform.rules import api_key as rules
from blobhub_server.platform.rules.access import Role
from blobhub_server.platform.rules.api_key import ApiKey
from blobhub_server.platform.store import api_key as key_store
from blobhub_server.platform.store import user as user_store
from blobhub_server.start import StartError


class BadAdminKey(StartError):
    """`BLOBHUB_ADMIN_KEY` is not a key."""


async def bootstrap(db: Database, clock: Clock, ids: Ids, entropy: Callable[[int], bytes], given: str | None) -> str | None:
    """Make sure that there is an administrator, and that `given`, when there is one, is a key of theirs.

    Returns the key that was made at the first start, which is nowhere else; None when none was made. A `given` key that
    is new is added, beside those the administrator has; taking the variable away does not revoke it. Raises BadAdminKey.
    """
    if given is not None and rules.parse(given) is None:
        raise BadAdminKey("BLOBHUB_ADMIN_KEY is not a well-formed key; `blobhub-server make-key` makes one")
    async with db.write() as tx:
        user_id = await user_store.administrator(tx)
        first = user_id is None
        if user_id is None:
            user_id = ids()
            await user_store.insert(tx, user_id, "administrator", administrator=True, now=clock())
        if given is None and not first:
            return None
        key = given or rules.make_secret(entropy)
        parsed = rules.parse(key)
        assert parsed is not None, "made by us, or checked above"
        public_id, secret_hash = parsed
        if await key_store.by_public_id(tx, public_id) is None:
            await key_store.insert(tx, _record(ids(), public_id, secret_hash, user_id, clock))
    return None if given else key


def _record(id_: str, public_id: str, secret_hash: bytes, user_id: str, clock: Clock) -> ApiKey:
    return ApiKey(
        id=id_,
        public_id=public_id,
        secret_hash=secret_hash,
        user_id=user_id,
        org_id=None,
        blob_id=None,
        role=Role.ADMIN,
        description="administrator",
        create_time=clock(),
        expire_time=None,
        revoke_time=None,
    )
