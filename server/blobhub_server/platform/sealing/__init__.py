"""Secrets at rest: credentials, the master keys that they are encrypted under, and the rotation of those."""
