"""Bytes by digest: a small interface, and local files behind it."""
