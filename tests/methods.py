"""Every RPC of the contract, from the descriptors: tests that must hold for all of them walk this list."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from blobhub.v1 import access_pb2
from google.protobuf import descriptor, descriptor_pb2, descriptor_pool

IMAGE = Path(__file__).resolve().parent.parent / ".build" / "image.binpb"


@dataclass(frozen=True)
class Method:
    """An RPC: its path, messages, kind, access rule and comment.

    `changes` is true where it takes a `request_id`, and leaves an entry in the audit log.
    """

    path: str
    input: descriptor.Descriptor
    output: descriptor.Descriptor
    server_streaming: bool
    client_streaming: bool
    access: access_pb2.AccessRule
    comment: str
    changes: bool

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[1]


@cache
def served_methods(package: str = "blobhub.v1") -> tuple[Method, ...]:
    """All methods of a package, with their comments from the compiled image."""
    image = descriptor_pb2.FileDescriptorSet.FromString(IMAGE.read_bytes())
    pool = descriptor_pool.Default()
    found = []
    for file in image.file:
        if file.package != package:
            continue
        __import__(f"{package}.{Path(file.name).stem}_pb2")
        comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        described = pool.FindFileByName(file.name)
        for s, service in enumerate(file.service):
            methods = described.services_by_name[service.name].methods
            for m, method in enumerate(methods):
                access = method.GetOptions().Extensions[access_pb2.access]
                quiet = method.GetOptions().idempotency_level == descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
                found.append(
                    Method(
                        path=f"/{file.package}.{service.name}/{method.name}",
                        input=method.input_type,
                        output=method.output_type,
                        server_streaming=method.server_streaming,
                        client_streaming=method.client_streaming,
                        access=access,
                        comment=comments.get((6, s, 2, m), ""),
                        changes=not quiet and not access.task_traffic,
                    )
                )
    return tuple(found)
