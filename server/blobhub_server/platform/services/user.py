"""UserService on the wire."""

from __future__ import annotations

from blobhub.v1 import user_pb2 as pb

from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.etag import require_etag
from blobhub_server.db.engine import IntegrityError, Transaction
from blobhub_server.db.keyset import Order
from blobhub_server.errors import AlreadyExists, NotFound
from blobhub_server.platform.admission import gate
from blobhub_server.platform.admission.locators import user_of
from blobhub_server.platform.rules import reference as grammar
from blobhub_server.platform.rules import user as rules
from blobhub_server.platform.rules.user import User
from blobhub_server.platform.store import user as store
from blobhub_server.rpc.masks import changed_fields
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.wire import to_timestamp


def to_proto(user: User) -> pb.User:
    """A user as their message."""
    return pb.User(
        id=user.id,
        name=user.name,
        display_name=user.display_name,
        administrator=user.administrator,
        disabled=user.disabled,
        issuer=user.issuer or "",
        subject=user.subject or "",
        create_time=to_timestamp(user.create_time),
        update_time=to_timestamp(user.update_time),
        etag=user.etag,
    )


class UserService:
    """Creates, finds, changes and disables users."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def CreateUser(self, request: pb.CreateUserRequest, call: Call[None]) -> pb.CreateUserResponse:
        async def make(tx: Transaction) -> pb.CreateUserResponse:
            now, ids = self._host.clock(), self._host.ids
            user = rules.new_user(
                id=ids(),
                name=request.name,
                display_name=request.display_name,
                administrator=request.administrator,
                now=now,
                etag=ids(),
            )
            try:
                async with tx.savepoint():
                    await store.insert(tx, user)
            except IntegrityError:
                raise AlreadyExists("user", request.name) from None
            return pb.CreateUserResponse(user=to_proto(user))

        return await call.once(make)

    async def GetUser(self, request: pb.GetUserRequest, call: Call[User]) -> pb.GetUserResponse:
        return pb.GetUserResponse(user=to_proto(call.resource))

    async def ListUsers(self, request: pb.ListUsersRequest, call: Call[None]) -> pb.ListUsersResponse:
        order_by = request.order_by or ("name" if request.name_prefix else "create_time")
        page = Page.parse(request, request.name_prefix, order_by)
        async with self._host.db.scan(call.caller.party) as tx:
            found = await store.page(
                tx, order_by=order_by, name_prefix=request.name_prefix, after=page.after, limit=page.limit + 1
            )
        items, token = await page.fill(found, Order.parse(store.users, order_by).key, to_proto)
        return pb.ListUsersResponse(users=items, next_page_token=token)

    async def UpdateUser(self, request: pb.UpdateUserRequest, call: Call[None]) -> pb.UpdateUserResponse:
        fields = changed_fields(request, "display_name", "administrator", "disabled")
        reference = grammar.parse("user", "user", request.user)

        async def make(tx: Transaction) -> pb.UpdateUserResponse:
            # Locked first, so that two calls cannot remove the last two administrators.
            administrators = await store.administrators(tx, lock=True)
            found = await user_of(tx, reference, call.caller)
            current = None if found is None else await store.get(tx, found.id, lock=True)
            if current is None:
                raise NotFound("user", request.user)
            require_etag(request.etag, current.etag)
            values = {name: getattr(request, name) for name in fields}
            administrator = values.get("administrator", current.administrator)
            remains = administrator and not values.get("disabled", current.disabled)
            rules.require_administrator_left(current.id, administrators, remains=remains)
            await store.update(tx, current.id, **values, update_time=self._host.clock(), etag=self._host.ids())
            await self._host.bell.ring_after_commit(tx, [gate.TOPIC])
            updated = await store.get(tx, current.id)
            assert updated is not None, "it is locked in this transaction"
            return pb.UpdateUserResponse(user=to_proto(updated))

        return await call.once(make)
