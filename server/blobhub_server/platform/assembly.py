"""The platform, put together: its services, and what it gives blob types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from blobhub.v1 import (
    api_key_pb2_grpc,
    blob_pb2_grpc,
    blob_type_pb2,
    blob_type_pb2_grpc,
    caller_pb2_grpc,
    organization_pb2_grpc,
    revision_pb2_grpc,
)

from blobhub_server.blobtypes.contract import Host, Locator, Service
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.db.engine import Database
from blobhub_server.platform.contents import Contents
from blobhub_server.platform.locators import Locators
from blobhub_server.platform.services.api_key import ApiKeyService
from blobhub_server.platform.services.blob import BlobService
from blobhub_server.platform.services.blob_type import BlobTypeService
from blobhub_server.platform.services.caller import CallerService
from blobhub_server.platform.services.organization import OrganizationService
from blobhub_server.platform.services.revision import RevisionService


def locators(db: Database) -> Mapping[str, Locator]:
    """The kinds of resource that the platform's access rules name."""
    made = Locators(db)
    return {
        "organization": made.organization,
        "blob": made.blob,
        "revision": made.revision,
        "scope": made.scope,
        "api_key": made.api_key,
    }


def services(host: Host, contents: Contents, types: BlobTypes, entropy: Callable[[int], bytes]) -> list[Service]:
    """The platform's services. The blob types are open."""
    service = partial(_service, "blobhub.v1")
    return [
        service("CallerService", CallerService(), caller_pb2_grpc.add_CallerServiceServicer_to_server),
        service(
            "ApiKeyService",
            ApiKeyService(host, entropy),
            api_key_pb2_grpc.add_ApiKeyServiceServicer_to_server,
        ),
        service(
            "OrganizationService",
            OrganizationService(host),
            organization_pb2_grpc.add_OrganizationServiceServicer_to_server,
        ),
        service("BlobService", BlobService(host, types), blob_pb2_grpc.add_BlobServiceServicer_to_server),
        service(
            "BlobTypeService",
            BlobTypeService(_described(types)),
            blob_type_pb2_grpc.add_BlobTypeServiceServicer_to_server,
        ),
        service(
            "RevisionService",
            RevisionService(host, contents, types),
            revision_pb2_grpc.add_RevisionServiceServicer_to_server,
        ),
    ]


def _service(package: str, name: str, servicer: object, add: Callable[..., None]) -> Service:
    return Service(f"{package}.{name}", servicer, add)


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
