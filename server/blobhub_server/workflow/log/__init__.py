"""The event log: what is written to it, as watchers see it, and how it is read and watched."""
