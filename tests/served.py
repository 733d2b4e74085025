"""A BlobHub server to test against: in this process, or as a process of its own that can be killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import grpc
from blobhub.v1 import (
    api_key_pb2_grpc,
    audit_pb2_grpc,
    blob_pb2,
    blob_pb2_grpc,
    blob_type_pb2_grpc,
    caller_pb2_grpc,
    component_pb2_grpc,
    credential_pb2_grpc,
    definition_pb2,
    definition_pb2_grpc,
    execution_pb2_grpc,
    limit_pb2_grpc,
    member_pb2_grpc,
    metadata_pb2_grpc,
    model_upload_pb2_grpc,
    operation_pb2_grpc,
    organization_pb2,
    organization_pb2_grpc,
    revision_pb2,
    revision_pb2_grpc,
    session_object_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    user_pb2_grpc,
)
from blobhub_client import KeyChannel
from blobhub_server.app import running
from blobhub_server.blobtypes.registry import BlobTypes
from blobhub_server.config import Settings
from forked import COMMAND, Forked
from marked import planted
from waiting import DEADLINE_SECONDS

WORKFLOW = "blobhub.compute.workflow"

# Servers that are started here, in this process or another one, serve HTTP on a free port unless they are told otherwise.
os.environ["BLOBHUB_HTTP_LISTEN"] = "127.0.0.1:0"


class Api:
    """Every stub over one channel, with one key."""

    def __init__(self, channel: grpc.aio.Channel, key: str | None) -> None:
        self.channel = channel
        self.key = key
        self.api_keys = api_key_pb2_grpc.ApiKeyServiceStub(channel)
        self.audit = audit_pb2_grpc.AuditServiceStub(channel)
        self.blobs = blob_pb2_grpc.BlobServiceStub(channel)
        self.blob_types = blob_type_pb2_grpc.BlobTypeServiceStub(channel)
        self.callers = caller_pb2_grpc.CallerServiceStub(channel)
        self.components = component_pb2_grpc.ComponentServiceStub(channel)
        self.credentials = credential_pb2_grpc.CredentialServiceStub(channel)
        self.definitions = definition_pb2_grpc.DefinitionServiceStub(channel)
        self.executions = execution_pb2_grpc.ExecutionServiceStub(channel)
        self.limits = limit_pb2_grpc.LimitServiceStub(channel)
        self.members = member_pb2_grpc.MemberServiceStub(channel)
        self.metadata = metadata_pb2_grpc.MetadataServiceStub(channel)
        self.operations = operation_pb2_grpc.OperationServiceStub(channel)
        self.model_uploads = model_upload_pb2_grpc.ModelUploadServiceStub(channel)
        self.organizations = organization_pb2_grpc.OrganizationServiceStub(channel)
        self.revisions = revision_pb2_grpc.RevisionServiceStub(channel)
        self.session_objects = session_object_pb2_grpc.SessionObjectServiceStub(channel)
        self.sessions = session_pb2_grpc.SessionServiceStub(channel)
        self.users = user_pb2_grpc.UserServiceStub(channel)

    async def session(
        self, document: str, *, organization: str = "acme", blob: str = "pipeline", alias: str = "workflow"
    ) -> str:
        """Make an organization, a workflow blob with one definition in its draft, and a session; return its id."""
        await self.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias=organization))
        await self.blobs.CreateBlob(blob_pb2.CreateBlobRequest(organization=organization, alias=blob, type=WORKFLOW))
        await self.put(document, revision=f"{organization}/{blob}@draft", alias=alias)
        answer = await self.sessions.CreateSession(session_pb2.CreateSessionRequest(revision=f"{organization}/{blob}@draft"))
        return answer.session.id

    async def put(self, document: str, *, revision: str = "acme/pipeline@draft", alias: str = "workflow") -> None:
        """Put a definition."""
        await self.definitions.PutDefinition(
            definition_pb2.PutDefinitionRequest(revision=revision, alias=alias, document=document)
        )

    async def publish(self, blob: str = "acme/pipeline") -> revision_pb2.Revision:
        """Commit and publish the only draft."""
        commit = await self.revisions.CommitRevision(revision_pb2.CommitRevisionRequest(revision=f"{blob}@draft"))
        answer = await self.revisions.PublishRevision(revision_pb2.PublishRevisionRequest(revision=commit.revision.id))
        return answer.revision


@asynccontextmanager
async def connected(address: str, key: str | None) -> AsyncIterator[Api]:
    """A client of a server, which itself takes messages of any size."""
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    options += [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
    async with grpc.aio.insecure_channel(address, options) as channel:
        yield Api(KeyChannel(channel, key) if key else channel, key)


@dataclass
class Served:
    """A server in this process."""

    address: str
    http_address: str
    inference_address: str
    admin_key: str
    settings: Settings


@asynccontextmanager
async def served(data_dir: Path, database_url: str | None = None, **settings) -> AsyncIterator[Served]:
    """Run a server in this process on a free port. `settings` are its own and those of blob types."""
    own = {name: value for name, value in settings.items() if name in Settings.model_fields}
    made = Settings(
        **{"listen": "127.0.0.1:0", "log_level": "debug"} | own,
        data_dir=data_dir,
        database_url=database_url,
    )
    if made.admin_key:
        planted(made.admin_key.get_secret_value(), "an administrator's key that was given")
    async with running(made, BlobTypes.load(settings=settings)) as server:
        yield Served(
            address=server.address,
            http_address=server.http_address,
            inference_address=server.inference_address or "",
            admin_key=planted(server.admin_key or "", "an administrator's key"),
            settings=made,
        )


class ServerProcess:
    """`blobhub-server serve` as a process of its own, or in its place a `command`, a script that says where it serves.

    It is forked by a process that has imported the server, unless it is to be `fresh`: for its own memory and pauses.

    Its log goes to the file `log`, if there is one.
    """

    alive: ClassVar[set[ServerProcess]] = set()

    def __init__(
        self,
        data_dir: Path,
        database_url: str | None = None,
        *,
        command: list[str] | None = None,
        fresh: bool = False,
        log: Path | None = None,
        **settings: object,
    ) -> None:
        self._command, self._fresh = command or [COMMAND, "serve"], fresh
        self._env = os.environ | {
            "BLOBHUB_LISTEN": "127.0.0.1:0",
            "BLOBHUB_DATA_DIR": str(data_dir),
            "BLOBHUB_LOG_LEVEL": "debug",
            **({"BLOBHUB_DATABASE_URL": database_url} if database_url else {}),
            **{f"BLOBHUB_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self._log = log
        self._process: Forked | subprocess.Popen[str] | None = None
        self.address = ""
        self.admin_key = ""

    @property
    def pid(self) -> int:
        """The running process's id."""
        assert self._process is not None
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether the process that was started last has not ended."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Start, and return when it serves."""
        with self._log.open("ab") if self._log else nullcontext() as log:
            if self._fresh:
                command = [sys.executable, *self._command]
                self._process = subprocess.Popen(command, env=self._env, stdout=subprocess.PIPE, stderr=log, text=True)
            else:
                self._process = Forked(self._command, self._env, stderr=log)
        self.alive.add(self)
        assert self._process.stdout is not None
        while True:
            line = await asyncio.to_thread(self._process.stdout.readline)
            assert line, f"the server ended before it served, with {self._process.wait()}"
            if key := re.search(r"bhk_\w+", line):
                self.admin_key = planted(key.group(), "an administrator's key")
            else:
                print(line, end="")
            if serving := re.search(r"serves on (\S+)", line):
                self.address = serving.group(1)
                return

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start it; leave to end it with SIGKILL."""
        await self.start()
        try:
            yield
        finally:
            self.kill()

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it with SIGTERM; return its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        assert self._process is not None
        self.alive.discard(self)
        self._process.send_signal(how)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self._process.wait(DEADLINE_SECONDS)
