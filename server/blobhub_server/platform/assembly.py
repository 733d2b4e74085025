"""The platform, put together: its services, and what it gives blob types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from blobhub.v1 import blob_type_pb2

from blobhub_server.blobtypes.access import Locator
from blobhub_server.blobtypes.contract import Host, Service
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.platform.admission.locators import Locators
from blobhub_server.platform.admission.roles import Roles
from blobhub_server.platform.blobs.contents import Contents
from blobhub_server.platform.blobs.events import BlobEvents
from blobhub_server.platform.blobs.limits import Limits
from blobhub_server.platform.sealing.credentials import Credentials
from blobhub_server.platform.services.api_key import ApiKeyService
from blobhub_server.platform.services.audit import AuditService
from blobhub_server.platform.services.blob import BlobService
from blobhub_server.platform.services.blob_type import BlobTypeService
from blobhub_server.platform.services.caller import CallerService
from blobhub_server.platform.services.credential import CredentialService
from blobhub_server.platform.services.limit import LimitService
from blobhub_server.platform.services.member import MemberService
from blobhub_server.platform.services.metadata import MetadataService
from blobhub_server.platform.services.organization import OrganizationService
from blobhub_server.platform.services.revision import RevisionService
from blobhub_server.platform.services.user import UserService


def kinds(locators: Locators) -> Mapping[str, Locator]:
    """The kinds of resource that the platform's access rules name."""
    return {
        "organization": locators.organization,
        "blob": locators.blob,
        "revision": locators.revision,
        "scope": locators.scope,
        "target": locators.target,
        "user": locators.user,
        "owner": locators.owner,
        "audit_scope": locators.audit_scope,
        "api_key": locators.api_key,
        "credential": locators.credential,
    }


@dataclass(frozen=True, slots=True)
class ServiceContext:
    """What the platform's services use beside the `Host` that every service gets."""

    contents: Contents
    credentials: Credentials
    limits: Limits
    types: BlobTypes
    locators: Locators
    roles: Roles


def services(host: Host, context: ServiceContext, entropy: Callable[[int], bytes]) -> list[Service]:
    """The platform's services. The blob types are open."""
    events = BlobEvents(host.bell, host.clock, host.ids)
    return [
        Service("blobhub.v1.CallerService", CallerService(host.db, context.locators, context.roles)),
        Service("blobhub.v1.UserService", UserService(host)),
        Service("blobhub.v1.ApiKeyService", ApiKeyService(host, entropy)),
        Service("blobhub.v1.OrganizationService", OrganizationService(host, context.types)),
        Service("blobhub.v1.MemberService", MemberService(host)),
        Service("blobhub.v1.BlobService", BlobService(host, context.types, events)),
        Service("blobhub.v1.BlobTypeService", BlobTypeService(_describe(context.types))),
        Service("blobhub.v1.RevisionService", RevisionService(host, context.contents, context.types, events)),
        Service("blobhub.v1.CredentialService", CredentialService(host, context.credentials)),
        Service("blobhub.v1.MetadataService", MetadataService(host, events)),
        Service("blobhub.v1.LimitService", LimitService(host, context.limits, context.roles)),
        Service("blobhub.v1.AuditService", AuditService(host)),
    ]


def _describe(types: BlobTypes) -> list[blob_type_pb2.BlobType]:
    return [
        blob_type_pb2.BlobType(
            name=item.type.name,
            title=item.type.title,
            description=item.type.description,
            services=[service.full_name for service in item.opened.services] if item.opened else [],
            distribution=item.distribution,
        )
        for item in types.all()
    ]
