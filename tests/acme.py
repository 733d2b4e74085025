"""Organizations, blobs and the people around them, a line each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from blobhub.v1 import (
    api_key_pb2,
    audit_pb2,
    blob_pb2,
    caller_pb2,
    member_pb2,
    organization_pb2,
    revision_pb2,
    session_pb2,
    user_pb2,
)
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from served import WORKFLOW, Api, Served, connected

READ, WRITE, ADMIN = "ROLE_READ", "ROLE_WRITE", "ROLE_ADMIN"
PRIVATE, PUBLIC = "VISIBILITY_PRIVATE", "VISIBILITY_PUBLIC"
DRAFT = "acme/pipeline@draft"


async def is_administrator(api: Api) -> bool:
    """Whether the caller is an administrator; what a key may is believed for a moment."""
    return (await api.callers.GetCaller(caller_pb2.GetCallerRequest())).caller.administrator


async def organization(api: Api, alias: str = "acme", **fields: Any) -> organization_pb2.Organization:
    request = organization_pb2.CreateOrganizationRequest(alias=alias, **fields)
    return (await api.organizations.CreateOrganization(request)).organization


async def rename_organization(api: Api, old: str, new: str) -> organization_pb2.Organization:
    request = organization_pb2.UpdateOrganizationRequest(organization=old, alias=new)
    return (await api.organizations.UpdateOrganization(request)).organization


async def delete_organization(api: Api, reference: str = "acme", **fields: Any) -> None:
    request = organization_pb2.DeleteOrganizationRequest(organization=reference, **fields)
    await api.organizations.DeleteOrganization(request)


async def blob(api: Api, reference: str = "acme/pipeline", type_: str = WORKFLOW, **fields: Any) -> blob_pb2.Blob:
    """A new blob, in an organization that is there."""
    parent, alias = reference.split("/")
    request = blob_pb2.CreateBlobRequest(organization=parent, alias=alias, type=type_, **fields)
    return (await api.blobs.CreateBlob(request)).blob


async def get_blob(api: Api, reference: str = "acme/pipeline") -> blob_pb2.Blob:
    return (await api.blobs.GetBlob(blob_pb2.GetBlobRequest(blob=reference))).blob


async def update_blob(api: Api, reference: str = "acme/pipeline", **fields: Any) -> blob_pb2.Blob:
    return (await api.blobs.UpdateBlob(blob_pb2.UpdateBlobRequest(blob=reference, **fields))).blob


async def delete_blob(api: Api, reference: str = "acme/pipeline", **fields: Any) -> blob_pb2.DeleteBlobResponse:
    return await api.blobs.DeleteBlob(blob_pb2.DeleteBlobRequest(blob=reference, **fields))


async def get_revision(api: Api, reference: str) -> revision_pb2.Revision:
    return (await api.revisions.GetRevision(revision_pb2.GetRevisionRequest(revision=reference))).revision


async def branch(api: Api, base: str = "", blob: str = "acme/pipeline") -> revision_pb2.Revision:
    """A new draft."""
    request = revision_pb2.CreateRevisionRequest(blob=blob, base_revision=base)
    return (await api.revisions.CreateRevision(request)).revision


async def commit(api: Api, reference: str = "acme/pipeline@draft", **fields: Any) -> revision_pb2.Revision:
    request = revision_pb2.CommitRevisionRequest(revision=reference, **fields)
    return (await api.revisions.CommitRevision(request)).revision


async def session(api: Api, revision: str, **fields: Any) -> session_pb2.Session:
    return (await api.sessions.CreateSession(session_pb2.CreateSessionRequest(revision=revision, **fields))).session


async def key(api: Api, scope: str, role: str = READ, **fields: Any) -> api_key_pb2.CreateApiKeyResponse:
    return await api.api_keys.CreateApiKey(api_key_pb2.CreateApiKeyRequest(parent=scope, role=role, **fields))


async def rotate_key(api: Api, key_id: str, grace: float = 0, **fields) -> api_key_pb2.RotateApiKeyResponse:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=grace))
    request = api_key_pb2.RotateApiKeyRequest(api_key=key_id, grace=duration, **fields)
    return await api.api_keys.RotateApiKey(request)


async def revoke_key(api: Api, key_id: str) -> api_key_pb2.ApiKey:
    return (await api.api_keys.RevokeApiKey(api_key_pb2.RevokeApiKeyRequest(api_key=key_id))).api_key


async def user(api: Api, name: str, **fields: Any) -> user_pb2.User:
    return (await api.users.CreateUser(user_pb2.CreateUserRequest(name=name, **fields))).user


async def update_user(api: Api, reference: str, **fields: Any) -> user_pb2.User:
    """The user, with these fields, and no others, changed."""
    request = user_pb2.UpdateUserRequest(user=reference, update_mask={"paths": list(fields)}, **fields)
    return (await api.users.UpdateUser(request)).user


async def member(api: Api, scope: str, name: str, role: str = READ) -> member_pb2.Member:
    request = member_pb2.CreateMemberRequest(parent=scope, user=f"@{name}", role=role)
    return (await api.members.CreateMember(request)).member


@asynccontextmanager
async def person(server: Served, api: Api, name: str, *roles: tuple[str, str], key_role: str = ADMIN) -> AsyncIterator[Api]:
    """A new user with (scope, role)s, connected with a personal key of theirs."""
    await user(api, name)
    for scope, role in roles:
        await member(api, scope, name, role)
    made = await key(api, f"@{name}", key_role)
    async with connected(server.address, made.key) as connection:
        yield connection


async def entries(api: Api, scope: str = "-", **filters: Any) -> list[audit_pb2.AuditEntry]:
    """The first thousand entries of the audit log of a scope."""
    request = audit_pb2.ListAuditEntriesRequest(parent=scope, page_size=1000, **filters)
    return list((await api.audit.ListAuditEntries(request)).entries)


def after(seconds: float) -> Timestamp:
    """The time so many seconds from now."""
    made = Timestamp()
    made.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
    return made


def aliases(items: Iterable[Any]) -> list[str]:
    return [item.alias for item in items]
