"""Visibility: who may see an organization or a blob without holding a role."""

from __future__ import annotations

PRIVATE = "private"
PUBLIC = "public"
