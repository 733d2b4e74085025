"""The platform, put together: its services, and what it gives blob types."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from blobhub.v1 import blob_type_pb2

from blobhub_server.blobtypes.access import Locator
from blobhub_server.blobtypes.contract import Host, Opened, Service
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.clock import Clock
from blobhub_server.config import Settings
from blobhub_server.db.engine import Database
from blobhub_server.db.notify import Doorbell
from blobhub_server.ids import Ids
from blobhub_server.objects.contract import ObjectStore
from blobhub_server.platform.admission.absence import Absence
from blobhub_server.platform.admission.actors import Actors
from blobhub_server.platform.admission.authentication import Authentication
from blobhub_server.platform.admission.gate import Gate
from blobhub_server.platform.admission.locators import Locators
from blobhub_server.platform.admission.oidc import open_tokens
from blobhub_server.platform.admission.roles import Roles
from blobhub_server.platform.admission.usage import KeyUsage
from blobhub_server.platform.admission.visible_blobs import VisibleBlobs
from blobhub_server.platform.blobs.collection import Collector
from blobhub_server.platform.blobs.contents import Contents
from blobhub_server.platform.blobs.events import BlobEvents
from blobhub_server.platform.blobs.limits import Limits
from blobhub_server.platform.blobs.object_collection import ObjectCollector
from blobhub_server.platform.blobs.operations.operations import Operations
from blobhub_server.platform.blobs.operations.runner import Runner
from blobhub_server.platform.calls.answer import Answers
from blobhub_server.platform.calls.audit import Audit
from blobhub_server.platform.calls.change import Changes
from blobhub_server.platform.sealing.credentials import Credentials
from blobhub_server.platform.sealing.keyring import Keyring
from blobhub_server.platform.services.api_key import ApiKeyService
from blobhub_server.platform.services.audit import AuditService
from blobhub_server.platform.services.blob import BlobService
from blobhub_server.platform.services.blob_type import BlobTypeService
from blobhub_server.platform.services.caller import CallerService
from blobhub_server.platform.services.credential import CredentialService
from blobhub_server.platform.services.limit import LimitService
from blobhub_server.platform.services.member import MemberService
from blobhub_server.platform.services.metadata import MetadataService
from blobhub_server.platform.services.operation import OperationService
from blobhub_server.platform.services.organization import OrganizationService
from blobhub_server.platform.services.revision import RevisionService
from blobhub_server.platform.services.user import UserService
from blobhub_server.rpc.access_options import AccessRule
from blobhub_server.rpc.drain import Drain


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the platform is built on: the server's id, settings, blob types, storage, clock, ids and entropy."""

    server_id: str
    settings: Settings
    types: BlobTypes
    db: Database
    bell: Doorbell
    objects: ObjectStore
    keyring: Keyring
    clock: Clock
    ids: Ids
    entropy: Callable[[int], bytes]


class Platform:
    """The platform, put together: what it gives blob types, its own services, and the gate in front of all services."""

    def __init__(self, ground: Ground) -> None:
        db, clock, ids = ground.db, ground.clock, ground.ids
        self.types = ground.types
        self._entropy = ground.entropy
        self.audit = Audit(db, ground.bell, clock, ids)
        self.roles = Roles(db)
        self.locators = Locators(db, self.roles)
        self.absence = Absence(db, self.roles)
        self.answers = Answers(db, clock, self.roles, ground.keyring.derive_keys(b"answers"), ground.keyring.current)
        self.changes = Changes(db, self.answers, self.audit)
        self.credentials = Credentials(db, ground.keyring)
        self.limits = Limits(ground.types, clock)
        self.contents = Contents(ground.objects, self.limits, clock, ids)
        self.collector = Collector(db, ground.bell, ground.types)
        self.object_collector = ObjectCollector(db, ground.objects, ground.types)
        self.actors = Actors(db, clock, self.locators, self.absence)
        self.operations = Operations(ground.types, self.limits, ground.bell, clock, ids)
        self.host = Host(
            server_id=ground.server_id,
            settings=ground.settings,
            db=db,
            bell=ground.bell,
            clock=clock,
            ids=ids,
            drain=Drain(),
            blobs=VisibleBlobs(db),
            revisions=self.locators,
            actors=self.actors,
            contents=self.contents,
            objects=ground.objects,
            settle=self.changes.settle,
            limits=self.limits,
            credentials=self.credentials,
            operations=self.operations,
        )
        self.operation_runner = Runner(self.host, ground.types)

    async def may_act(self, actor_id: str) -> bool:
        """Whether a key or user may act now: it is there, and neither revoked, expired nor disabled."""
        async with self.host.db.read() as tx:
            return await self.actors.may_act(tx, actor_id)

    def opened(self) -> Opened:
        """What the platform brings, in the form of what a blob type brings. The blob types are open."""
        return Opened(services=self.services(), locators=self.kinds(), limits=self.limits.of_platform)

    def kinds(self) -> Mapping[str, Locator]:
        """The kinds of resource that the platform's access rules name."""
        locators = self.locators
        return {
            "organization": locators.organization,
            "blob": locators.blob,
            "revision": locators.locate,
            "organization_or_blob": locators.organization_or_blob,
            "blob_or_revision": locators.blob_or_revision,
            "user": locators.user,
            "organization_blob_or_user": locators.organization_blob_or_user,
            "organization_blob_or_server": locators.organization_blob_or_server,
            "api_key": locators.api_key,
            "credential": locators.credential,
            "operation": locators.operation,
            "queue": locators.queue,
        }

    def services(self) -> list[Service]:
        """The platform's services. The blob types are open."""
        host, types = self.host, self.types
        events = BlobEvents(host.bell, host.clock, host.ids)
        return [
            Service("blobhub.v1.CallerService", CallerService(host.db, self.locators, self.roles, self.absence)),
            Service("blobhub.v1.UserService", UserService(host)),
            Service("blobhub.v1.ApiKeyService", ApiKeyService(host, self._entropy)),
            Service("blobhub.v1.OrganizationService", OrganizationService(host, types)),
            Service("blobhub.v1.MemberService", MemberService(host)),
            Service("blobhub.v1.BlobService", BlobService(host, types, events)),
            Service("blobhub.v1.BlobTypeService", BlobTypeService(_describe(types))),
            Service("blobhub.v1.RevisionService", RevisionService(host, self.contents, types, events, self.operations)),
            Service("blobhub.v1.OperationService", OperationService(host, self.operations)),
            Service("blobhub.v1.CredentialService", CredentialService(host, self.credentials)),
            Service("blobhub.v1.MetadataService", MetadataService(host, events)),
            Service("blobhub.v1.LimitService", LimitService(host, self.limits, self.roles)),
            Service("blobhub.v1.AuditService", AuditService(host)),
        ]

    @asynccontextmanager
    async def gate(self, rules: Mapping[str, AccessRule], kinds: Mapping[str, Locator]) -> AsyncIterator[Gate]:
        """The gate, with authentication by keys, and by tokens where an issuer is configured."""
        host = self.host
        usage = KeyUsage(host.db, host.clock)
        tokens = open_tokens(host.settings, host.db, self.audit, host.clock, host.ids)
        async with usage.writing():
            yield Gate(
                authentication=Authentication(host.db, host.clock, usage, tokens),
                roles=self.roles,
                answers=self.answers,
                changes=self.changes,
                audit=self.audit,
                rules=rules,
                locators=kinds,
                absence=self.absence,
            )


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
