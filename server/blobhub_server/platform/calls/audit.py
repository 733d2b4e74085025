"""The audit log: what is written to it, and when.

The entry of a change is written in the change's transaction; refusals that queue up share a transaction. The log is numbered
without gaps over the whole server, so a missing entry shows. For that, a transaction locks one row from the append to its
commit; so appending is the last thing that it does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
from google.protobuf.message import Message

from blobhub_server.blobtypes.call import Call
from blobhub_server.clock import Clock
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.db.group import GroupCommitter
from blobhub_server.db.notify import Doorbell
from blobhub_server.errors import BlobHubError
from blobhub_server.ids import Ids
from blobhub_server.platform.rules.api_key import mask_keys
from blobhub_server.platform.store import audit as store

log = structlog.get_logger()

TOPIC = "audit"
"""The doorbell that is rung when the log has grown."""

MAX_TEXT_LENGTH, MAX_REQUEST_ID_LENGTH = 256, 36

DETAILS = frozenset(
    {
        "administrator",
        "alias",
        "base_revision",
        "cascade",
        "create_only",
        "credential",
        "definition",
        "disabled",
        "keep_default",
        "key",
        "label",
        "name",
        "role",
        "user",
        "value",
        "visibility",
    }
)
"""The request fields that an entry shows. They are short, and hold neither content nor secrets."""

# Matches only at the beginning of a word; trying every letter of a long word would take quadratic time.
_TOKEN_PATTERN = re.compile(r"(?<![\w-])[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}")

ANONYMOUS_BURST, ANONYMOUS_PER_SECOND = 2000, 10
"""How many refusals of anonymous callers are recorded. Others are only logged, because anybody could fill the disk."""

AuditRow = Mapping[str, Any]
"""A row of the log without what `append` adds: sequence, id and time."""


def audit_row(call: Call[object], *, answer: Message | None = None, error: BlobHubError | None = None) -> AuditRow:
    """The entry for a call that was answered with `answer`, or with `error`.

    A created resource is the entry's resource when the request names none. A created blob is the entry's blob.
    """
    kind, value = call.reference
    created = _created_ids(answer)
    return {
        "method": call.method.removeprefix("/"),
        "user_id": call.caller.user_id,
        "api_key_id": call.caller.key_id,
        "organization_id": created.get("organization", call.place.organization_id) or None,
        "blob_id": created.get("blob", call.place.blob_id or "") or None,
        "resource_type": kind or next(iter(created), ""),
        "resource": _mask(value or next(iter(created.values()), "")),
        "code": error.code if error else "OK",
        "reason": error.reason if error else "",
        "domain": error.domain if error else "",
        "request_id": _mask(getattr(call.request, "request_id", ""))[:MAX_REQUEST_ID_LENGTH],
        "detail": _detail(call.request, created),
    }


def own_audit_row(method: str, user_id: str, detail: str) -> AuditRow:
    """The entry for what the server does by itself: `oidc` creates users, `bootstrap` an administrator and keys."""
    return {
        "method": method,
        "user_id": user_id,
        "api_key_id": None,
        "organization_id": None,
        "blob_id": None,
        "resource_type": "user",
        "resource": user_id,
        "code": "OK",
        "reason": "",
        "domain": "",
        "request_id": "",
        "detail": detail,
    }


def _detail(request: Message, created: Mapping[str, str]) -> str:
    """What a request asks for beyond the resource it names, and the ids in its answer."""
    said = []
    fields = request.ListFields()
    # What is to be run stands in a message of its own, which several requests share.
    specs = [value for field, value in fields if field.name == "spec" and isinstance(value, Message)]
    for field, value in [*fields, *(item for spec in specs for item in spec.ListFields())]:
        if field.name == "update_mask":
            said.append(f"update_mask={','.join(value.paths)}")
        elif field.name in DETAILS and field.message_type is None and not field.is_repeated:
            of_enum = field.enum_type.values_by_number.get(value) if field.enum_type else None
            said.append(f"{field.name}={of_enum.name if of_enum else value}")
    return _mask(" ".join([*said, *(f"id={id_}" for id_ in created.values())]))


def _mask(text: str) -> str:
    """Text of a request that may be unvalidated, without secrets and control characters, cut to a length."""
    masked = _TOKEN_PATTERN.sub("…", mask_keys(text))
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in masked)[:MAX_TEXT_LENGTH]


def _created_ids(answer: Message | None) -> dict[str, str]:
    """The ids of the resources in an answer, by the name of their field."""
    if answer is None:
        return {}
    found = {}
    for field, value in answer.ListFields():
        if field.message_type is not None and not field.is_repeated and "id" in field.message_type.fields_by_name:
            found[field.name] = str(value.id)
    return found


class TokenBucket:
    """A token bucket: `burst` at once, and then `per_second`."""

    def __init__(self, burst: int, per_second: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = float(burst)
        self._since: datetime | None = None

    def take(self, now: datetime) -> bool:
        """Take one; False when there is none left."""
        passed = max(0.0, (now - self._since).total_seconds()) if self._since else 0.0
        self._left, self._since = min(self._burst, self._left + passed * self._per_second), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Audit:
    """Appends to the log."""

    def __init__(self, db: Database, bell: Doorbell, clock: Clock, ids: Ids) -> None:
        self._bell = bell
        self._clock = clock
        self._ids = ids
        self._refusals: GroupCommitter[AuditRow, None] = GroupCommitter(db, self._append_batch)
        self._anonymous = TokenBucket(ANONYMOUS_BURST, ANONYMOUS_PER_SECOND)

    async def append(self, tx: Transaction, entries: Sequence[AuditRow]) -> None:
        """Add entries in a transaction, as its last step."""
        if not entries:
            return
        now = self._clock()
        first = await store.take_numbers(tx, len(entries))
        rows = [{"sequence": first + i, "id": self._ids(), "create_time": now, **entry} for i, entry in enumerate(entries)]
        await store.insert(tx, rows)
        await self._bell.ring_after_commit(tx, [TOPIC])

    async def record_refusal(self, entry: AuditRow) -> None:
        """Add the entry of a refusal; return once it is durable. A failure to write is logged and not raised."""
        if entry["user_id"] is None and entry["api_key_id"] is None and not self._anonymous.take(self._clock()):
            log.warning(
                "refusal_not_recorded",
                method=entry["method"],
                code=entry["code"],
                reason="too many refusals of unidentified callers",
            )
            return
        try:
            await self._refusals.submit(entry)
        except Exception:
            log.exception("refusal_not_recorded", method=entry["method"], code=entry["code"])

    async def close(self) -> None:
        """Finish what was submitted."""
        await self._refusals.close()

    async def _append_batch(self, tx: Transaction, entries: Sequence[AuditRow]) -> Sequence[None]:
        await self.append(tx, entries)
        return [None] * len(entries)
