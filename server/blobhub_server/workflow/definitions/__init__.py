"""Definitions: read, checked, compiled for running, and found in revisions."""
