"""OrganizationService on the wire."""

from __future__ import annotations

from blobhub.v1 import organization_pb2 as pb

from blobhub_server.blobtypes.access import Role
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import DELETIONS, Host
from blobhub_server.blobtypes.etag import require_etag
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.db.engine import Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.errors import PermissionDenied
from blobhub_server.platform.admission import gate
from blobhub_server.platform.blobs.aliases import change_alias, claim_alias
from blobhub_server.platform.blobs.deletion import mark_organization
from blobhub_server.platform.blobs.locks import lock_user
from blobhub_server.platform.rules import organization as rules
from blobhub_server.platform.rules.member import Member
from blobhub_server.platform.rules.organization import Organization
from blobhub_server.platform.services.visibility import SHARED_FIELDS, changed_columns, from_visibility, to_visibility
from blobhub_server.platform.store import member as member_store
from blobhub_server.platform.store import organization as store
from blobhub_server.rpc.masks import changed_fields
from blobhub_server.rpc.paging import Page, order_of
from blobhub_server.rpc.wire import to_timestamp


def to_proto(organization: Organization) -> pb.Organization:
    """An organization as its message."""
    return pb.Organization(
        id=organization.id,
        alias=organization.alias,
        description=organization.description,
        visibility=to_visibility(organization.visibility),
        create_time=to_timestamp(organization.create_time),
        update_time=to_timestamp(organization.update_time),
        etag=organization.etag,
    )


class OrganizationService:
    """Creates, finds, changes and deletes organizations."""

    def __init__(self, host: Host, types: BlobTypes) -> None:
        self._host = host
        self._types = types

    async def CreateOrganization(
        self, request: pb.CreateOrganizationRequest, call: Call[None]
    ) -> pb.CreateOrganizationResponse:
        user_id = call.caller.user_id
        assert user_id is not None, "the access rule asks for a user"

        async def make(tx: Transaction) -> pb.CreateOrganizationResponse:
            await lock_user(tx, user_id)
            rules.require_room(user_id, await store.count_created_by(tx, user_id))
            now, ids = self._host.clock(), self._host.ids
            visibility = from_visibility(request.visibility)
            made = Organization(
                id=ids(),
                alias=request.alias,
                description=request.description,
                visibility=visibility,
                blob_count=0,
                create_time=now,
                update_time=now,
                etag=ids(),
            )
            async with claim_alias(tx, "organization", "", request.alias, made.id):
                await store.insert(tx, made, user_id)
            admin = Member(
                user_id=user_id,
                user_name=call.caller.user_name,
                organization_id=made.id,
                blob_id=None,
                role=Role.ADMIN,
                create_time=now,
                update_time=now,
                etag=ids(),
            )
            await member_store.insert(tx, admin)
            return pb.CreateOrganizationResponse(organization=to_proto(made))

        return await call.once(make)

    async def GetOrganization(
        self, request: pb.GetOrganizationRequest, call: Call[Organization]
    ) -> pb.GetOrganizationResponse:
        return pb.GetOrganizationResponse(organization=to_proto(call.resource))

    async def ListOrganizations(
        self, request: pb.ListOrganizationsRequest, call: Call[None]
    ) -> pb.ListOrganizationsResponse:
        visibility, order_by = from_visibility(request.visibility, unset=""), order_of(request)
        page = Page.parse(request, call.caller.identity, request.alias_prefix, visibility, order_by)
        async with self._host.db.scan(call.caller.party) as tx:
            found = await store.page(
                tx,
                call.caller,
                order_by=order_by,
                alias_prefix=request.alias_prefix,
                visibility=visibility,
                after=page.after,
                limit=page.limit + 1,
            )
        items, token = await page.fill(found, Order.parse(store.organizations, order_by).key, to_proto)
        return pb.ListOrganizationsResponse(organizations=items, next_page_token=token)

    async def UpdateOrganization(
        self, request: pb.UpdateOrganizationRequest, call: Call[Organization]
    ) -> pb.UpdateOrganizationResponse:
        async def make(tx: Transaction) -> pb.UpdateOrganizationResponse:
            current = await self._lock(tx, call.resource.id, request.etag)
            values = changed_columns(
                request, current, changed_fields(request, *SHARED_FIELDS), now=self._host.clock(), etag=self._host.ids()
            )
            async with change_alias(tx, "organization", "", current.alias, values.get("alias"), current.id):
                await store.update(tx, current.id, **values)
            await self._host.bell.ring_after_commit(tx, [gate.TOPIC])
            return pb.UpdateOrganizationResponse(organization=to_proto(await self._lock(tx, current.id, "")))

        return await call.once(make)

    async def DeleteOrganization(
        self, request: pb.DeleteOrganizationRequest, call: Call[Organization]
    ) -> pb.DeleteOrganizationResponse:
        async def make(tx: Transaction) -> pb.DeleteOrganizationResponse:
            current = await self._lock(tx, call.resource.id, request.etag)
            rules.require_empty(current, cascade=request.cascade)
            await mark_organization(tx, self._types, current.id)
            await self._host.bell.ring_after_commit(tx, [gate.TOPIC, DELETIONS])
            return pb.DeleteOrganizationResponse()

        return await call.once(make)

    async def _lock(self, tx: Transaction, organization_id: str, etag: str) -> Organization:
        """Lock an organization and return it as it is now. Raises StaleEtag; PermissionDenied when it is gone."""
        current = await store.find(tx, id_=organization_id, lock=True)
        if current is None:
            raise PermissionDenied
        require_etag(etag, current.etag)
        return current
