"""The workflow slice: definitions, sessions, executions and their events."""
