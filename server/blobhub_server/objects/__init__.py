"""Bytes by digest, as streams: a small interface, and local files behind it."""
