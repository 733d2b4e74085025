"""The comments of protos, for reflection.

Generated stubs carry none: protoc leaves the source info out of them. So it comes from *images* beside the stubs, which are
descriptor sets made with `--include_source_info`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import structlog
from blobhub.v1 import access_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError

OURS = Path(access_pb2.__file__).with_name("descriptors.binpb")
"""The image of `blobhub.v1`, which the stubs' distribution brings."""


class Comments:
    """Adds comments to the files that reflection answers.

    The images are read at the first file, because most servers are never asked for one.
    """

    def __init__(self, images: Iterable[Path]) -> None:
        self._images = tuple(images)
        self._files: dict[str, FileDescriptorProto] | None = None

    def add(self, served: bytes) -> bytes:
        """The same FileDescriptorProto with its comments; as it is when no image has that very file."""
        if self._files is None:
            self._files = _read_all(self._images)
        file = FileDescriptorProto.FromString(served)
        commented = self._files.get(file.name)
        if commented is None:
            return served
        # Source info names elements by their place. Over another version of the file it would comment the wrong ones.
        bare = FileDescriptorProto()
        bare.CopyFrom(commented)
        bare.ClearField("source_code_info")
        if bare != file:
            structlog.get_logger().warning("comments_of_another_version", file=file.name)
            del self._files[file.name]
            return served
        return commented.SerializeToString()


def _read_all(images: Iterable[Path]) -> dict[str, FileDescriptorProto]:
    """The files of all images, by name."""
    return {file.name: file for image in images for file in _read(image)}


def _read(image: Path) -> Iterable[FileDescriptorProto]:
    """The files of an image. One that cannot be read costs its comments, and a line in the log, and nothing else."""
    try:
        return FileDescriptorSet.FromString(image.read_bytes()).file
    except (OSError, DecodeError) as error:
        structlog.get_logger().warning("unreadable_comments", image=str(image), error=str(error))
        return ()
