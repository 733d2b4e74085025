"""The platform on a real database, without gRPC: services to call, and calls to hand them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from blobhub_server.blobtypes.access import ANONYMOUS, NOWHERE, Caller, Place, Role
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.clock import utc_now
from blobhub_server.config import Settings
from blobhub_server.db.migrations import migrate
from blobhub_server.db.notify import Doorbell
from blobhub_server.db.opening import open_database
from blobhub_server.ids import Uuid7
from blobhub_server.objects.local import LocalObjects
from blobhub_server.platform.assembly import Ground, Platform
from blobhub_server.platform.sealing.keyring import load
from google.protobuf.message import Message


class Unserved(Platform):
    """The platform, and calls to hand to its services."""

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
    types = BlobTypes.load()
    await migrate(settings.url, types.chains())
    ids = Uuid7()
    ground = Ground(
        server_id=ids(),
        settings=settings,
        types=types,
        db=db,
        bell=Doorbell(db),
        objects=LocalObjects(data_dir / "objects"),
        keyring=load(settings, os.urandom),
        clock=utc_now,
        ids=ids,
        entropy=os.urandom,
    )
    platform = Unserved(ground)
    yield platform
    await platform.audit.close()
    await db.close()
