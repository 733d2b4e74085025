"""SQL of the platform: one module per noun, each with its table and the statements on it."""

from blobhub_server.platform.store import api_key, blob, content, organization, request, revision, user

__all__ = ["api_key", "blob", "content", "organization", "request", "revision", "user"]
