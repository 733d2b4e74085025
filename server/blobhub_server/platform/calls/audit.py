"""The audit log: what is written to it, and when.

The entry of a change is written in the change's transaction; refusals that queue up share a transaction. The log is numbered
without gaps over the whole server, so a missing entry shows. For that, a transaction locks one row from the append to its
commit; so appending is the last thing that it does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from blobhub.v1 import access_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from blobhub_server.blobtypes.call import Call
from blobhub_server.bounded_log import BoundedLog
from blobhub_server.clock import Clock
from blobhub_server.db.engine import Database, Transaction
from blobhub_server.db.group import GroupCommitter
from blobhub_server.db.notify import Doorbell
from blobhub_server.errors import BlobHubError, StorageUnavailable
from blobhub_server.ids import Ids
from blobhub_server.platform.rules.api_key import mask_keys
from blobhub_server.platform.store import audit as store

TOPIC = "audit"
"""The doorbell that is rung when the log has grown."""

MAX_TEXT_LENGTH, MAX_REQUEST_ID_LENGTH = 256, 36

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
    """The audited fields that a request sets, and the ids in its answer."""
    return _mask(" ".join([*_shown(request), *(f"id={id_}" for id_ in created.values())]))


def _shown(message: Message) -> Iterator[str]:
    """The audited fields that are set in a message of a request, and in those inside it that are not repeated."""
    audited = _audited(message.DESCRIPTOR)
    for field, value in message.ListFields():
        if field.name in audited:
            yield f"{field.name}={_text(field, value)}"
        elif field.message_type and not field.is_repeated:
            yield from _shown(value)


def _text(field: FieldDescriptor, value: Any) -> str:
    if isinstance(value, FieldMask):
        return ",".join(value.paths)
    known = field.enum_type.values_by_number.get(value) if field.enum_type else None
    return known.name if known else str(value)


@cache
def _audited(message: Descriptor) -> frozenset[str]:
    """The fields of a message that say they are `audited`."""
    return frozenset(field.name for field in message.fields if field.GetOptions().Extensions[access_pb2.audited])


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
        self._log = BoundedLog("refusal_not_recorded")

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
        about = {"method": entry["method"], "code": entry["code"]}
        if entry["user_id"] is None and entry["api_key_id"] is None and not self._anonymous.take(self._clock()):
            self._log.write("warning", tuple(about.values()), **about, reason="too many refusals of unidentified callers")
            return
        try:
            await self._refusals.submit(entry)
        except StorageUnavailable:
            pass  # The committer has reported it, and the storage that would take the entry is what is missing.
        except Exception:
            self._log.write("error", tuple(about.values()), **about, exc_info=True)

    async def close(self) -> None:
        """Finish what was submitted."""
        await self._refusals.close()

    async def _append_batch(self, tx: Transaction, entries: Sequence[AuditRow]) -> Sequence[None]:
        await self.append(tx, entries)
        return [None] * len(entries)
