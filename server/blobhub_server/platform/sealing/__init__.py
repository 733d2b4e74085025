"""Secrets at rest: credentials in use, the master keys they are sealed under, and changing those."""
