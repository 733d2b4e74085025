"""SQL of the ONNX slice: one module per noun, each with its table and the statements on it."""

from pathlib import Path

from blobhub_server.onnx.store import upload

TABLES = (upload.model_uploads,)

MIGRATIONS = Path(__file__).resolve().parent / "migrations"

__all__ = ["MIGRATIONS", "TABLES", "upload"]
