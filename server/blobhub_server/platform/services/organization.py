"""OrganizationService on the wire."""

from __future__ import annotations

from typing import Any

from blobhub.v1 import organization_pb2 as pb
from blobhub.v1 import organization_pb2_grpc as rpc
from sqlalchemy.exc import IntegrityError

from blobhub_server.blobtypes.contract import Host
from blobhub_server.db.engine import Transaction
from blobhub_server.errors import AlreadyExists
from blobhub_server.platform.calls import caller, located
from blobhub_server.platform.rules.access import Role
from blobhub_server.platform.rules.organization import Organization
from blobhub_server.platform.store import organization as store
from blobhub_server.platform.store import user as user_store
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.wire import to_timestamp


def to_proto(organization: Organization) -> pb.Organization:
    """An organization as its message."""
    return pb.Organization(
        id=organization.id,
        alias=organization.alias,
        description=organization.description,
        create_time=to_timestamp(organization.create_time),
        update_time=to_timestamp(organization.update_time),
        etag=organization.etag,
    )


class OrganizationService(rpc.OrganizationServiceServicer):
    """Creates and finds organizations."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def CreateOrganization(self, request: pb.CreateOrganizationRequest, context: Any) -> pb.CreateOrganizationResponse:
        """See organization.proto."""
        user_id = caller().user_id
        assert user_id is not None, "the access rule asks for a user"

        async def make(tx: Transaction) -> pb.CreateOrganizationResponse:
            now = self._host.clock()
            made = Organization(self._host.ids(), request.alias, request.description, now, now, self._host.ids())
            try:
                async with tx.savepoint():
                    await store.insert(tx, made)
            except IntegrityError:
                raise AlreadyExists("organization", request.alias) from None
            await user_store.add_member(tx, user_id, made.id, Role.ADMIN)
            return pb.CreateOrganizationResponse(organization=to_proto(made))

        return await self._host.calls.once(request, pb.CreateOrganizationResponse, make)

    async def GetOrganization(self, request: pb.GetOrganizationRequest, context: Any) -> pb.GetOrganizationResponse:
        """See organization.proto."""
        return pb.GetOrganizationResponse(organization=to_proto(located().resource))

    async def ListOrganizations(self, request: pb.ListOrganizationsRequest, context: Any) -> pb.ListOrganizationsResponse:
        """See organization.proto."""
        page = Page.parse(request, caller().identity)
        async with self._host.db.read() as tx:
            found = await store.page(tx, caller(), after=page.after, limit=page.limit + 1)
        items, token = page.cut(found, lambda organization: organization.id)
        return pb.ListOrganizationsResponse(organizations=map(to_proto, items), next_page_token=token)
