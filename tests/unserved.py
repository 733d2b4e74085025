"""The platform on a real database, without gRPC: services to call, and calls to hand them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blobhub_server.blobtypes.access import ANONYMOUS, NOWHERE, Caller, Place, Role
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.clock import utc_now
from blobhub_server.config import Settings
from blobhub_server.db.migrations import migrate
from blobhub_server.db.notify import Doorbell
from blobhub_server.db.opening import open_database
from blobhub_server.ids import Uuid7
from blobhub_server.objects.local import LocalObjects
from blobhub_server.platform.admission.actors import Actors
from blobhub_server.platform.admission.locators import Locators
from blobhub_server.platform.admission.roles import Roles
from blobhub_server.platform.blobs.contents import Contents
from blobhub_server.platform.blobs.limits import Limits
from blobhub_server.platform.calls.answer import Answers
from blobhub_server.platform.calls.audit import Audit
from blobhub_server.platform.calls.change import Changes
from blobhub_server.platform.sealing.credentials import Credentials
from blobhub_server.platform.sealing.keyring import load
from blobhub_server.rpc.drain import Drain
from google.protobuf.message import Message


@dataclass(frozen=True)
class Unserved:
    """What services are made of, and what their calls change things with."""

    host: Host
    types: BlobTypes
    answers: Answers
    changes: Changes

    def call(
        self,
        request: Message,
        resource: Any = None,
        *,
        place: Place = NOWHERE,
        caller: Caller = ANONYMOUS,
        role: Role = Role.ADMIN,
        method: str = "/test.v1.Service/Method",
    ) -> Call[Any]:
        """A call that has been admitted."""
        return Call(
            method=method,
            request=request,
            resource=resource,
            place=place,
            caller=caller,
            role=role,
            changes=self.changes,
        )


@asynccontextmanager
async def unserved(data_dir: Path, database_url: str) -> AsyncIterator[Unserved]:
    """The platform on a fresh database. No blob type is open."""
    settings = Settings(data_dir=data_dir, database_url=database_url)
    data_dir.mkdir(exist_ok=True)
    db = await open_database(settings.url)
    types, ids, bell = BlobTypes.load(), Uuid7(), Doorbell(db)
    await migrate(settings.url, types.chains())
    keyring = load(settings, os.urandom)
    audit = Audit(db, bell, utc_now, ids)
    limits = Limits(types, utc_now)
    answers = Answers(db, utc_now, Roles(db), keyring.derive_keys(b"answers"), keyring.current)
    changes = Changes(db, answers, audit)
    host = Host(
        settings=settings,
        db=db,
        bell=bell,
        clock=utc_now,
        ids=ids,
        drain=Drain(),
        revisions=Locators(db),
        actors=Actors(utc_now),
        contents=Contents(LocalObjects(data_dir / "objects"), limits, utc_now, ids),
        settle=changes.settle,
        limits=limits,
        credentials=Credentials(db, keyring),
    )
    yield Unserved(host, types, answers, changes)
    await audit.close()
    await db.close()
