"""SQL of the platform: one module per noun, each with its table and the statements on it."""

from blobhub_server.platform.store import (
    alias,
    api_key,
    audit,
    blob,
    blob_event,
    content,
    credential,
    deletion,
    limit,
    master_key,
    member,
    metadata,
    organization,
    request,
    revision,
    user,
)

__all__ = [
    "alias",
    "api_key",
    "audit",
    "blob",
    "blob_event",
    "content",
    "credential",
    "deletion",
    "limit",
    "master_key",
    "member",
    "metadata",
    "organization",
    "request",
    "revision",
    "user",
]
