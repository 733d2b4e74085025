"""What access the methods of the Open Inference Protocol need, whose proto carries no options. The start checks it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from blobhub.v1.access_pb2 import PERMISSION_ANYONE, PERMISSION_READ

from blobhub_server.rpc.access_options import MethodAccess

SERVICE = "inference.GRPCInferenceService"


def _reference(name: str, version: str) -> str:
    """The revision of a model: a version is the number of a snapshot, unless the name says which revision it is."""
    return f"{name}@{version}" if version else name


def _named(request: Any) -> str:
    return _reference(request.name, request.version)


def _inferred(request: Any) -> str:
    return _reference(request.model_name, request.model_version)


def _reading(field: str, compose: Callable[[Any], str], *, public_read: bool = True) -> MethodAccess:
    return MethodAccess(
        permission=PERMISSION_READ, resource="revision", field=field, public_read=public_read, compose=compose
    )


_anyone = partial(MethodAccess, permission=PERMISSION_ANYONE)

ACCESS = {
    "ServerLive": _anyone(),
    "ServerReady": _anyone(),
    "ServerMetadata": _anyone(),
    # What it lists is filtered by what the caller may read.
    "RepositoryIndex": _anyone(),
    "ModelReady": _reading("name", _named),
    "ModelMetadata": _reading("name", _named),
    "ModelConfig": _reading("name", _named),
    "ModelStatistics": _reading("name", _named, public_read=False),
    "ModelInfer": _reading("model_name", _inferred),
}
