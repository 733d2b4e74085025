"""SQL of the workflow slice: one module per noun, each with its table and the statements on it."""

from blobhub_server.workflow.store import event, execution, message, server, session, session_object

__all__ = ["event", "execution", "message", "server", "session", "session_object"]
