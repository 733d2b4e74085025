"""MemberService on the wire."""

from __future__ import annotations

from dataclasses import replace

from blobhub.v1 import access_pb2
from blobhub.v1 import member_pb2 as pb

from blobhub_server.blobtypes.access import Caller, Role
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.etag import require_etag
from blobhub_server.db.engine import IntegrityError, Transaction
from blobhub_server.errors import AlreadyExists, NotFound
from blobhub_server.platform.admission import gate
from blobhub_server.platform.admission.locators import user_of
from blobhub_server.platform.blobs.locks import lock_place
from blobhub_server.platform.rules import member as rules
from blobhub_server.platform.rules import reference as grammar
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.member import Member
from blobhub_server.platform.rules.organization import Organization
from blobhub_server.platform.rules.user import User
from blobhub_server.platform.store import member as store
from blobhub_server.rpc.masks import changed_fields
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.wire import to_timestamp


def to_proto(member: Member) -> pb.Member:
    """A member as its message."""
    return pb.Member(
        user_id=member.user_id,
        user_name=member.user_name,
        organization_id=member.organization_id,
        blob_id=member.blob_id or "",
        role=access_pb2.Role.ValueType(int(member.role)),
        create_time=to_timestamp(member.create_time),
        update_time=to_timestamp(member.update_time),
        etag=member.etag,
    )


class MemberService:
    """Manages who holds which role."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def CreateMember(
        self, request: pb.CreateMemberRequest, call: Call[Organization | Blob]
    ) -> pb.CreateMemberResponse:
        async def make(tx: Transaction) -> pb.CreateMemberResponse:
            await lock_place(tx, call.place)
            user, place = await _user(tx, request.user, call.caller), call.place
            if user is None:
                raise NotFound("user", request.user)
            now, role = self._host.clock(), Role(request.role)
            member = Member(
                user_id=user.id,
                user_name=user.name,
                organization_id=place.organization_id,
                blob_id=place.blob_id,
                role=role,
                create_time=now,
                update_time=now,
                etag=self._host.ids(),
            )
            try:
                async with tx.savepoint():
                    await store.insert(tx, member)
            except IntegrityError:
                raise AlreadyExists("member", request.user) from None
            held = await store.count(tx, place.organization_id)
            await self._host.limits.require(
                tx, "organization.members", organization_id=place.organization_id, blob_id="", held=held
            )
            return pb.CreateMemberResponse(member=to_proto(member))

        return await call.once(make)

    async def GetMember(self, request: pb.GetMemberRequest, call: Call[Organization | Blob]) -> pb.GetMemberResponse:
        async with self._host.db.read() as tx:
            return pb.GetMemberResponse(member=to_proto(await _member(tx, call, request.user)))

    async def ListMembers(self, request: pb.ListMembersRequest, call: Call[Organization | Blob]) -> pb.ListMembersResponse:
        resource_id, role, order_by = call.resource.id, Role(request.role), request.order_by or "user"
        page = Page.parse(request, resource_id, str(int(role)), order_by)
        async with self._host.db.scan(call.caller.party) as tx:
            found = await store.page(tx, resource_id, order_by=order_by, role=role, after=page.after, limit=page.limit + 1)
        items, token = await page.fill(found, store.order(order_by).key, to_proto)
        return pb.ListMembersResponse(members=items, next_page_token=token)

    async def UpdateMember(
        self, request: pb.UpdateMemberRequest, call: Call[Organization | Blob]
    ) -> pb.UpdateMemberResponse:
        changed_fields(request, "role")
        role = Role(request.role)

        async def make(tx: Transaction) -> pb.UpdateMemberResponse:
            current = await self._lock_member(tx, call, request.user, request.etag, remains=role is Role.ADMIN)
            updated = replace(current, role=role, update_time=self._host.clock(), etag=self._host.ids())
            await store.update(tx, updated)
            return pb.UpdateMemberResponse(member=to_proto(updated))

        return await call.once(make)

    async def DeleteMember(
        self, request: pb.DeleteMemberRequest, call: Call[Organization | Blob]
    ) -> pb.DeleteMemberResponse:
        async def make(tx: Transaction) -> pb.DeleteMemberResponse:
            current = await self._lock_member(tx, call, request.user, request.etag, remains=False)
            await store.delete(tx, call.resource.id, current.user_id)
            return pb.DeleteMemberResponse()

        return await call.once(make)

    async def _lock_member(
        self, tx: Transaction, call: Call[Organization | Blob], user: str, etag: str, *, remains: bool
    ) -> Member:
        """Lock a member whose role is about to change, and check that it may. Rechecks streams after the commit."""
        await lock_place(tx, call.place)
        current = await _member(tx, call, user)
        require_etag(etag, current.etag)
        rules.require_admin_left(current, await store.admins(tx, current.organization_id), remains=remains)
        await self._host.bell.ring_after_commit(tx, [gate.TOPIC])
        return current


async def _member(tx: Transaction, call: Call[Organization | Blob], reference: str) -> Member:
    """A member of the call's place. For others the error does not say whether they are users of the server."""
    user = await _user(tx, reference, call.caller)
    member = None if user is None else await store.get(tx, call.resource.id, user.id)
    if member is None:
        raise NotFound("member", reference, "ListMembers lists those that there are")
    return member


async def _user(tx: Transaction, reference: str, caller: Caller) -> User | None:
    return await user_of(tx, grammar.parse("user", "user", reference), caller)
