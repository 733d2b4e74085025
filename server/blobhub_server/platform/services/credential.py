"""CredentialService on the wire."""

from __future__ import annotations

from dataclasses import replace

from blobhub.v1 import credential_pb2 as pb
from google.protobuf.struct_pb2 import Value

from blobhub_server.blobtypes.access import Place
from blobhub_server.blobtypes.call import Call
from blobhub_server.blobtypes.contract import Host
from blobhub_server.blobtypes.etag import require_etag
from blobhub_server.db.engine import IntegrityError, Transaction
from blobhub_server.errors import AlreadyExists, InvalidValue, NotFound, PermissionDenied
from blobhub_server.platform.rules import credential as rules
from blobhub_server.platform.rules.blob import Blob
from blobhub_server.platform.rules.credential import Credential
from blobhub_server.platform.rules.organization import Organization
from blobhub_server.platform.rules.user import User
from blobhub_server.platform.sealing.credentials import Credentials
from blobhub_server.platform.store import credential as store
from blobhub_server.platform.store import user as user_store
from blobhub_server.rpc.masks import changed_fields
from blobhub_server.rpc.paging import Page
from blobhub_server.rpc.wire import from_value, to_timestamp


def to_proto(credential: Credential) -> pb.Credential:
    """A credential's record as its message; there is no field for the body."""
    return pb.Credential(
        id=credential.id,
        alias=credential.alias,
        type=credential.type,
        description=credential.description,
        user_id=credential.user_id or "",
        organization_id=credential.organization_id or "",
        blob_id=credential.blob_id or "",
        create_time=to_timestamp(credential.create_time),
        update_time=to_timestamp(credential.update_time),
        etag=credential.etag,
    )


class CredentialService:
    """Stores credentials. Bodies are written and never read back."""

    def __init__(self, host: Host, credentials: Credentials) -> None:
        self._host = host
        self._credentials = credentials

    async def CreateCredential(
        self, request: pb.CreateCredentialRequest, call: Call[Organization | Blob | User]
    ) -> pb.CreateCredentialResponse:
        body = _body(request)

        async def make(tx: Transaction) -> pb.CreateCredentialResponse:
            await self._lock_place(tx, call.place)
            made = self._new(request, call.place)
            rules.require_room(made.parent_id, await store.count(tx, made.parent_id))
            sealed = await self._credentials.seal(tx, made, body)
            try:
                async with tx.savepoint():
                    await store.insert(tx, made, sealed)
            except IntegrityError:
                raise AlreadyExists("credential", made.alias) from None
            return pb.CreateCredentialResponse(credential=to_proto(made))

        return await call.once(make)

    async def _lock_place(self, tx: Transaction, place: Place) -> None:
        """Lock the place of a new credential until the commit. Raises PermissionDenied when it is gone."""
        if place.organization_id:
            await self._host.limits.lock(tx, organization_id=place.organization_id, blob_id=place.blob_id or "")
        elif await user_store.get(tx, place.user_id or "", lock=True) is None:
            raise PermissionDenied

    def _new(self, request: pb.CreateCredentialRequest, place: Place) -> Credential:
        now = self._host.clock()
        return Credential(
            id=self._host.ids(),
            user_id=place.user_id,
            organization_id=place.organization_id or None,
            blob_id=place.blob_id,
            alias=request.alias,
            type=request.type,
            description=request.description,
            create_time=now,
            update_time=now,
            etag=self._host.ids(),
        )

    async def GetCredential(self, request: pb.GetCredentialRequest, call: Call[Credential]) -> pb.GetCredentialResponse:
        return pb.GetCredentialResponse(credential=to_proto(call.resource))

    async def ListCredentials(
        self, request: pb.ListCredentialsRequest, call: Call[Organization | Blob | User]
    ) -> pb.ListCredentialsResponse:
        parent_id, order_by = call.resource.id, request.order_by or "alias"
        page = Page.parse(request, parent_id, request.type, request.alias_prefix, order_by)
        async with self._host.db.scan(call.caller.party) as tx:
            found = await store.page(
                tx,
                parent_id,
                order_by=order_by,
                type_=request.type,
                alias_prefix=request.alias_prefix,
                after=page.after,
                limit=page.limit + 1,
            )
        items, token = await page.fill(found, lambda credential: credential.alias, to_proto)
        return pb.ListCredentialsResponse(credentials=items, next_page_token=token)

    async def ResolveCredential(
        self, request: pb.ResolveCredentialRequest, call: Call[Blob]
    ) -> pb.ResolveCredentialResponse:
        blob = call.resource
        async with self._host.db.read() as tx:
            found = await store.resolve(tx, blob.organization_id, blob.id, request.alias)
        if found is None:
            raise NotFound("credential", request.alias)
        return pb.ResolveCredentialResponse(credential=to_proto(found[0]))

    async def UpdateCredential(
        self, request: pb.UpdateCredentialRequest, call: Call[Credential]
    ) -> pb.UpdateCredentialResponse:
        fields = changed_fields(request, "body", "body_json", "description")
        secret = bool({"body", "body_json"} & fields)
        if secret and request.WhichOneof("form") is None:
            raise InvalidValue("body", "is to be changed, and is not set")
        body = _body(request)

        async def make(tx: Transaction) -> pb.UpdateCredentialResponse:
            current = await self._lock(tx, call.resource.id, request.etag)
            changed = replace(current, update_time=self._host.clock(), etag=self._host.ids())
            if "description" in fields:
                changed = replace(changed, description=request.description)
            sealed = await self._credentials.seal(tx, changed, body) if secret else None
            await store.update(tx, changed, sealed)
            return pb.UpdateCredentialResponse(credential=to_proto(changed))

        return await call.once(make)

    async def DeleteCredential(
        self, request: pb.DeleteCredentialRequest, call: Call[Credential]
    ) -> pb.DeleteCredentialResponse:
        async def make(tx: Transaction) -> pb.DeleteCredentialResponse:
            current = await self._lock(tx, call.resource.id, request.etag)
            await store.delete(tx, current.id)
            return pb.DeleteCredentialResponse()

        return await call.once(make)

    async def _lock(self, tx: Transaction, credential_id: str, etag: str) -> Credential:
        """Lock a credential and return it as it is now. Raises StaleEtag; PermissionDenied when it is gone."""
        current = await store.get(tx, credential_id, lock=True)
        if current is None:
            raise PermissionDenied
        require_etag(etag, current.etag)
        return current


def _body(request: pb.CreateCredentialRequest | pb.UpdateCredentialRequest) -> bytes:
    """The body that a request brings, in whichever form, as JSON. Raises InvalidValue."""
    if request.WhichOneof("form") == "body_json":
        return rules.parse(request.body_json)
    return rules.encode(from_value(Value(struct_value=request.body)))
