"""The test suite for blob types, built-in ones and those of others.

A type's tests subclass `BlobTypeConformance` and provide `blob_type`, `put_valid`, `put_invalid` and `edit`, which use the
type's own service. pytest collects it; the fixtures `blobhub_address` and `blobhub_admin_key` name a running server that
has the type installed. What a type does is tested through that server; its class variables are tested in this process.
"""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, ClassVar

import grpc
from blobhub.v1 import (
    access_pb2,
    api_key_pb2,
    api_key_pb2_grpc,
    blob_pb2,
    blob_pb2_grpc,
    blob_type_pb2,
    blob_type_pb2_grpc,
    limit_pb2,
    limit_pb2_grpc,
    organization_pb2,
    organization_pb2_grpc,
    revision_pb2,
    revision_pb2_grpc,
)
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2

from blobhub_server.blobtypes.reasons import CODES, error_classes, reasons_of
from blobhub_server.blobtypes.registry import BlobTypes, InstalledType
from blobhub_server.config import Settings, variable
from blobhub_server.db.migrations import migrate
from blobhub_server.rpc.comments import Comments


class Refusal(Exception):
    """A call was not refused, or not as expected."""


class Hub:
    """A channel to the server, and metadata that carries a key."""

    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        self.channel = channel
        self.metadata = (("authorization", f"Bearer {key}"),)
        self.organizations = organization_pb2_grpc.OrganizationServiceStub(channel)
        self.blobs = blob_pb2_grpc.BlobServiceStub(channel)
        self.revisions = revision_pb2_grpc.RevisionServiceStub(channel)
        self.blob_types = blob_type_pb2_grpc.BlobTypeServiceStub(channel)
        self.limits = limit_pb2_grpc.LimitServiceStub(channel)
        self.api_keys = api_key_pb2_grpc.ApiKeyServiceStub(channel)

    async def organization(self) -> str:
        """A new organization's alias."""
        alias = f"org-{uuid.uuid4().hex[:12]}"
        request = organization_pb2.CreateOrganizationRequest(alias=alias)
        await self.organizations.CreateOrganization(request, metadata=self.metadata)
        return alias

    async def blob(self, type_: str) -> str:
        """A new blob's reference, in an organization of its own."""
        organization = await self.organization()
        request = blob_pb2.CreateBlobRequest(organization=organization, alias="subject", type=type_)
        await self.blobs.CreateBlob(request, metadata=self.metadata)
        return f"{organization}/subject"

    async def revision(self, reference: str) -> revision_pb2.Revision:
        """A revision."""
        request = revision_pb2.GetRevisionRequest(revision=reference)
        return (await self.revisions.GetRevision(request, metadata=self.metadata)).revision

    async def commit(self, reference: str) -> revision_pb2.Revision:
        """Commit a draft."""
        request = revision_pb2.CommitRevisionRequest(revision=reference)
        return (await self.revisions.CommitRevision(request, metadata=self.metadata)).revision


async def expect_refusal(call: Awaitable[Any], code: grpc.StatusCode, reason: str) -> grpc.aio.AioRpcError:
    """The error that a call is refused with. Raises Refusal when it succeeds, or fails with another code or reason."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        if error.code() is code and reason_of(error) == reason:
            return error
        raise Refusal(f"refused with {error.code()} {reason_of(error)}, not {code} {reason}") from error
    raise Refusal(f"not refused; {code} {reason} was expected")


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The `ErrorReason` of an error."""
    info = error_details_pb2.ErrorInfo()
    return info.reason if unpack(error, info) else ""


def unpack(error: grpc.aio.AioRpcError, into: Any) -> bool:
    """Unpack a detail of an error, if it has one of that type."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return any(detail.Unpack(into) for detail in status_pb2.Status.FromString(value).details)
    return False


class BlobTypeConformance:
    """What every blob type promises."""

    blob_type: ClassVar[str]

    async def put_valid(self, hub: Hub, revision: str) -> None:
        """Give a draft content that can be committed; the same bytes at every call."""
        raise NotImplementedError

    async def put_invalid(self, hub: Hub, revision: str) -> None:
        """Give a draft content that cannot be committed."""
        raise NotImplementedError

    async def edit(self, hub: Hub, revision: str) -> None:
        """Change something in a revision that has the valid content."""
        raise NotImplementedError

    @asynccontextmanager
    async def _hub(self, address: str, key: str) -> AsyncIterator[Hub]:
        async with grpc.aio.insecure_channel(address) as channel:
            yield Hub(channel, key)

    async def test_it_is_listed_and_described(self, blobhub_address: str, blobhub_admin_key: str) -> None:
        """ListBlobTypes says what it is and where it comes from."""
        async with self._hub(blobhub_address, blobhub_admin_key) as hub:
            listed = await hub.blob_types.ListBlobTypes(blob_type_pb2.ListBlobTypesRequest())
        own = [item for item in listed.blob_types if item.name == self.blob_type]
        assert len(own) == 1
        assert re.fullmatch(r"[a-z0-9]+(\.[a-z0-9]+)+", own[0].name)
        assert own[0].title
        assert own[0].description
        assert own[0].distribution
        assert own[0].services

    async def test_every_method_says_what_access_it_needs(self, blobhub_address: str, blobhub_admin_key: str) -> None:
        """The access option is there, and what is not public names a resource."""
        async with self._hub(blobhub_address, blobhub_admin_key) as hub:
            listed = await hub.blob_types.ListBlobTypes(blob_type_pb2.ListBlobTypesRequest())
        services = next(item.services for item in listed.blob_types if item.name == self.blob_type)
        for service in services:
            described = descriptor_pool.Default().FindServiceByName(service)
            if access_pb2.DESCRIPTOR not in described.file.dependencies:
                continue  # A ForeignService, whose table the start has checked.
            for method in described.methods:
                rule = method.GetOptions().Extensions[access_pb2.access]
                assert rule.permission != access_pb2.PERMISSION_UNSPECIFIED, method.full_name
                assert rule.permission <= access_pb2.PERMISSION_USER or rule.field in method.input_type.fields_by_name

    async def test_invalid_content_cannot_be_committed(self, blobhub_address: str, blobhub_admin_key: str) -> None:
        """The refusal lists what is wrong, and the draft stays a draft."""
        async with self._hub(blobhub_address, blobhub_admin_key) as hub:
            draft = f"{await hub.blob(self.blob_type)}@draft"
            await self.put_invalid(hub, draft)
            error = await expect_refusal(hub.commit(draft), grpc.StatusCode.FAILED_PRECONDITION, "INVALID_CONTENT")
            bad = error_details_pb2.BadRequest()
            assert unpack(error, bad)
            assert all(violation.description for violation in bad.field_violations)
            assert bad.field_violations
            assert (await hub.revision(draft)).phase == revision_pb2.REVISION_PHASE_DRAFT

    async def test_the_same_content_has_the_same_digest(self, blobhub_address: str, blobhub_admin_key: str) -> None:
        """Commits of equal content in two blobs have equal digests."""
        async with self._hub(blobhub_address, blobhub_admin_key) as hub:
            digests = []
            for _ in range(2):
                draft = f"{await hub.blob(self.blob_type)}@draft"
                await self.put_valid(hub, draft)
                digests.append((await hub.commit(draft)).digest)
        assert re.fullmatch(r"[0-9a-f]{64}", digests[0])
        assert digests[0] == digests[1]

    async def test_a_commit_never_changes(self, blobhub_address: str, blobhub_admin_key: str) -> None:
        """Edits of a commit are refused, and leave its digest and etag as they were."""
        async with self._hub(blobhub_address, blobhub_admin_key) as hub:
            draft = f"{await hub.blob(self.blob_type)}@draft"
            await self.put_valid(hub, draft)
            commit = await hub.commit(draft)
            await expect_refusal(self.edit(hub, commit.id), grpc.StatusCode.FAILED_PRECONDITION, "WRONG_PHASE")
            assert await hub.revision(commit.id) == commit

    async def test_a_branch_begins_with_its_parents_content(self, blobhub_address: str, blobhub_admin_key: str) -> None:
        """A draft branched from a commit has the same digest when it is committed as it is, another one when edited."""
        async with self._hub(blobhub_address, blobhub_admin_key) as hub:
            blob = await hub.blob(self.blob_type)
            await self.put_valid(hub, f"{blob}@draft")
            first = await hub.commit(f"{blob}@draft")
            digests = []
            for edited in (False, True):
                request = revision_pb2.CreateRevisionRequest(blob=blob, base_revision=first.id)
                branch = (await hub.revisions.CreateRevision(request, metadata=hub.metadata)).revision
                if edited:
                    await self.edit(hub, branch.id)
                digests.append((await hub.commit(branch.id)).digest)
        assert digests[0] == first.digest
        assert digests[1] != first.digest

    async def test_every_edit_moves_the_etag(self, blobhub_address: str, blobhub_admin_key: str) -> None:
        """A writer notices by it that the content has changed since it was read."""
        async with self._hub(blobhub_address, blobhub_admin_key) as hub:
            draft = f"{await hub.blob(self.blob_type)}@draft"
            etags = [(await hub.revision(draft)).etag]
            for change in (self.put_valid, self.edit):
                await change(hub, draft)
                etags.append((await hub.revision(draft)).etag)
        assert len(set(etags)) == len(etags)

    async def test_blobs_of_other_types_are_refused(self, blobhub_address: str, blobhub_admin_key: str) -> None:
        """The type's service works on its own blobs alone."""
        async with self._hub(blobhub_address, blobhub_admin_key) as hub:
            listed = await hub.blob_types.ListBlobTypes(blob_type_pb2.ListBlobTypesRequest())
            other = next((item.name for item in listed.blob_types if item.name != self.blob_type), None)
            if other is not None:
                draft = f"{await hub.blob(other)}@draft"
                await expect_refusal(self.put_valid(hub, draft), grpc.StatusCode.FAILED_PRECONDITION, "WRONG_BLOB_TYPE")

    async def test_a_strangers_key_opens_nothing(self, blobhub_address: str, blobhub_admin_key: str) -> None:
        """A key of another organization is refused in the same words, whether the blob is there or not."""
        async with self._hub(blobhub_address, blobhub_admin_key) as hub:
            foreign = f"{await hub.blob(self.blob_type)}@draft"
            request = api_key_pb2.CreateApiKeyRequest(parent=await hub.organization(), role=access_pb2.ROLE_WRITE)
            key = (await hub.api_keys.CreateApiKey(request, metadata=hub.metadata)).key
            stranger = Hub(hub.channel, key)
            said = []
            for draft in (foreign, "no/such@draft"):
                call = self.put_valid(stranger, draft)
                error = await expect_refusal(call, grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
                said.append((error.details(), str(error.trailing_metadata())))
        assert said[0] == said[1]

    async def test_its_limits_are_described_and_counted(self, blobhub_address: str, blobhub_admin_key: str) -> None:
        """GetLimits of a blob says of each how much is held."""
        async with self._hub(blobhub_address, blobhub_admin_key) as hub:
            blob = await hub.blob(self.blob_type)
            await self.put_valid(hub, f"{blob}@draft")
            found = await hub.limits.GetLimits(limit_pb2.GetLimitsRequest(parent=blob), metadata=hub.metadata)
        for limit in found.limits:
            assert re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", limit.name)
            assert limit.description
            assert 0 <= limit.held <= limit.value
            assert limit.HasField("held")

    async def test_a_blob_of_it_is_deleted_with_all_that_is_in_it(
        self, blobhub_address: str, blobhub_admin_key: str
    ) -> None:
        """Nothing that the type stores prevents the deletion."""
        async with self._hub(blobhub_address, blobhub_admin_key) as hub:
            blob = await hub.blob(self.blob_type)
            await self.put_valid(hub, f"{blob}@draft")
            await hub.commit(f"{blob}@draft")
            await hub.blobs.DeleteBlob(blob_pb2.DeleteBlobRequest(blob=blob, cascade=True), metadata=hub.metadata)
            gone = hub.blobs.GetBlob(blob_pb2.GetBlobRequest(blob=blob), metadata=hub.metadata)
            await expect_refusal(gone, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")

    def _installed(self) -> tuple[BlobTypes, InstalledType]:
        types = BlobTypes.load()
        return types, next(item for item in types.all() if item.type.name == self.blob_type)

    async def test_its_capabilities_can_be_told_apart_from_other_objects(self) -> None:
        """They are classes or `runtime_checkable` protocols, which nothing fulfils by chance."""
        _, installed = self._installed()
        for kind in (*installed.type.needs, *installed.type.wants, *installed.type.offers):
            assert not isinstance(object(), kind)

    async def test_its_settings_are_described_and_read_from_the_environment(self) -> None:
        """Each setting is read from `BLOBHUB_<NAME>` and has a description."""
        _, installed = self._installed()
        model = installed.type.settings
        assert model.model_config.get("env_prefix") == variable("")
        assert all(field.description for field in model.model_fields.values())

    async def test_each_of_its_errors_has_a_reason_of_its_own_domain(self) -> None:
        """Each reason has an error, too."""
        _, installed = self._installed()
        own = [kind for kind in error_classes() if kind.domain == self.blob_type and "reason" in vars(kind)]
        assert {kind.reason for kind in own} == reasons_of(installed.type.reasons)
        assert all(kind.code in CODES for kind in own)

    async def test_its_descriptors_are_those_of_its_stubs(self) -> None:
        """Otherwise reflection would show no comments. They do have source info."""
        _, installed = self._installed()
        path, pool = installed.type.descriptors, descriptor_pool.Default()
        if path is None:
            return
        for file in FileDescriptorSet.FromString(path.read_bytes()).file:
            served: bytes = pool.FindFileByName(file.name).serialized_pb
            assert Comments([path]).add(served) != served, f"{file.name} in {path} is not the one of the stubs"

    async def test_its_migrations_make_its_tables(self, tmp_path: Path) -> None:
        """All its migrations run, in order, on an empty database."""
        types, installed = self._installed()
        folder, tables = installed.type.migrations, installed.type.tables
        assert bool(tables) == (folder is not None)
        if folder is not None:
            numbers = sorted(path.name[:4] for path in folder.glob("[0-9]*.py"))
            assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
        file = tmp_path / "blobhub.db"
        await migrate(f"sqlite:///{file}", types.chains())
        with closing(sqlite3.connect(file)) as database:
            for table in tables:
                made = {row[1] for row in database.execute(f"PRAGMA table_info({table.name})")}
                assert made == {column.name for column in table.columns}

    async def test_its_checks_tell_how_it_is_in_a_line(self) -> None:
        """Each check answers in one line, with the settings of this process."""
        _, installed = self._installed()
        own = installed.checks(Settings())
        assert len({check.what for check in own}) == len(own)
        for check in own:
            said = await check.look()
            assert said
            assert "\n" not in check.what + said
