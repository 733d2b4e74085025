"""The first start: an administrator, and the key that is shown once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime

from blobhub_server.blobtypes.access import Role
from blobhub_server.clock import Clock
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.ids import Ids
from blobhub_server.platform.calls.audit import Audit, own_audit_row
from blobhub_server.platform.rules import api_key as rules
from blobhub_server.platform.rules.api_key import ApiKey
from blobhub_server.platform.rules.user import new_user
from blobhub_server.platform.store import api_key as key_store
from blobhub_server.platform.store import user as user_store
from blobhub_server.start import StartError


class BadAdminKey(StartError):
    """`BLOBHUB_ADMIN_KEY` is not a key."""


async def bootstrap(
    db: Database,
    audit: Audit,
    clock: Clock,
    ids: Ids,
    entropy: Callable[[int], bytes],
    given: str | None,
    show: Callable[[str], None] = lambda _: None,
) -> str | None:
    """Make sure that there is an administrator, and that `given`, unless None, is a key of theirs.

    Returns the key made at the first start, which is stored nowhere; None when none was made. `show` gets it before the
    commit, and may raise: a key that nobody has seen would keep everybody out for ever. A new `given` key is added to
    those that the administrator has; removing the variable does not revoke it. Raises BadAdminKey, also for a key that is
    revoked or belongs to somebody else.
    """
    if given is not None and rules.parse(given) is None:
        raise BadAdminKey("BLOBHUB_ADMIN_KEY is not a well-formed key; `blobhub-server make-key` makes one")
    async with db.write() as tx:
        administrators = await user_store.administrators(tx)
        if given is None and administrators:
            return None
        user_id = administrators[0].id if administrators else await _administrator(tx, clock, ids)
        key = given or rules.make_secret(entropy)
        record = rules.new_key(
            key,
            id=ids(),
            user_id=user_id,
            organization_id=None,
            blob_id=None,
            role=Role.ADMIN,
            description="administrator",
            now=clock(),
            expire_time=None,
            etag=ids(),
        )
        known = await key_store.get_by_public_id(tx, record.public_id)
        if known is None:
            await key_store.insert(tx, record)
            await audit.append(tx, [own_audit_row("bootstrap", user_id, f"key={record.id}")])
        elif not _opens(known, record, {user.id for user in administrators}, clock()):
            raise BadAdminKey("BLOBHUB_ADMIN_KEY is a key that was revoked or is not an administrator's; give another one")
        if given is None:
            show(key)
    return None if given else key


def _opens(known: ApiKey, given: ApiKey, administrators: Collection[str], now: datetime) -> bool:
    """Whether a key that is known already is the given one, and still an administrator's."""
    ours = known.user_id in administrators and known.role is Role.ADMIN
    return ours and rules.matches(known, given.secret_hash) and known.valid(now)


async def _administrator(tx: Transaction, clock: Clock, ids: Ids) -> str:
    user = new_user(
        id=ids(), name="administrator", display_name="Administrator", administrator=True, now=clock(), etag=ids()
    )
    await user_store.insert(tx, user)
    return user.id
