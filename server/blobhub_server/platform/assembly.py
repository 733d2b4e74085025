"""The platform, put together: its services, and what it gives blob types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from blobhub.v1 import (
    api_key_pb2_grpc,
    audit_pb2_grpc,
    blob_pb2_grpc,
    blob_type_pb2,
    blob_type_pb2_grpc,
    caller_pb2_grpc,
    credential_pb2_grpc,
    limit_pb2_grpc,
    member_pb2_grpc,
    metadata_pb2_grpc,
    organization_pb2_grpc,
    revision_pb2_grpc,
    user_pb2_grpc,
)

from blobhub_server.blobtypes.contract import Host, Locator, Service
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.platform.admission.locators import Locators
from blobhub_server.platform.admission.roles import Roles
from blobhub_server.platform.blob_events import BlobEvents
from blobhub_server.platform.contents import Contents
from blobhub_server.platform.limits import Limits
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
class Parts:
    """What the platform's services are made of, beside what every service is handed."""

    contents: Contents
    credentials: Credentials
    limits: Limits
    types: BlobTypes
    locators: Locators
    roles: Roles


def services(host: Host, parts: Parts, entropy: Callable[[int], bytes]) -> list[Service]:
    """The platform's services. The blob types are open."""
    service = partial(_service, "blobhub.v1")
    events = BlobEvents(host.bell, host.clock, host.ids)
    return [
        service("CallerService", CallerService(host.db, parts.locators, parts.roles), caller_pb2_grpc),
        service("UserService", UserService(host), user_pb2_grpc),
        service("ApiKeyService", ApiKeyService(host, entropy), api_key_pb2_grpc),
        service("OrganizationService", OrganizationService(host, parts.types), organization_pb2_grpc),
        service("MemberService", MemberService(host), member_pb2_grpc),
        service("BlobService", BlobService(host, parts.types, events), blob_pb2_grpc),
        service("BlobTypeService", BlobTypeService(_described(parts.types)), blob_type_pb2_grpc),
        service("RevisionService", RevisionService(host, parts.contents, parts.types, events), revision_pb2_grpc),
        service("CredentialService", CredentialService(host, parts.credentials), credential_pb2_grpc),
        service("MetadataService", MetadataService(host, events), metadata_pb2_grpc),
        service("LimitService", LimitService(host, parts.limits, parts.roles), limit_pb2_grpc),
        service("AuditService", AuditService(host), audit_pb2_grpc),
    ]


def _service(package: str, name: str, servicer: object, stubs: object) -> Service:
    return Service(f"{package}.{name}", servicer, getattr(stubs, f"add_{name}Servicer_to_server"))


def _described(types: BlobTypes) -> list[blob_type_pb2.BlobType]:
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
