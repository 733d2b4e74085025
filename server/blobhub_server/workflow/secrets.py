"""Credentials for components, with the rights that whoever started the execution has when they are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blobhub_server.blobtypes.access import Place, Role
from blobhub_server.blobtypes.contract import Host
from blobhub_server.errors import PermissionDenied
from blobhub_server.workflow.components.outside import Secrets


class ActorSecrets(Secrets):
    """Implements `components.outside.Secrets`."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def use(self, *, organization_id: str, blob_id: str, actor_id: str, alias: str) -> Mapping[str, Any]:
        place = Place(organization_id=organization_id, blob_id=blob_id)
        return await self._host.db.trouble.outlasted(lambda: self._use(place, actor_id, alias))

    async def _use(self, place: Place, actor_id: str, alias: str) -> Mapping[str, Any]:
        async with self._host.db.read() as tx:
            role = await self._host.actors.role(tx, actor_id, place)
        if role < Role.WRITE:
            raise PermissionDenied("whoever this is done for may not execute in this workflow any more")
        return await self._host.credentials.use(place.organization_id, place.blob_id or "", alias)
