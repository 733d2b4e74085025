"""Which object store a server uses: local files, or a bucket of Google Cloud Storage."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from blobhub_server.config import Settings
from blobhub_server.objects.contract import ObjectStore
from blobhub_server.objects.grant import Signer
from blobhub_server.objects.local import LocalObjects
from blobhub_server.start import StartError


class NoObjectStore(StartError):
    """The object store that the settings name cannot be used."""


def folder_of(settings: Settings) -> Path | None:
    """The folder of local objects; None where they are not local."""
    if settings.objects_url is None:
        return settings.data_dir / "objects"
    url = urlsplit(settings.objects_url)
    return Path(unquote(url.path)) if url.scheme == "file" else None


def open_objects(settings: Settings, signer: Signer | None = None) -> ObjectStore:
    """The object store that the settings name. `signer` signs what is served here. Raises NoObjectStore."""
    folder = folder_of(settings)
    if folder is not None:
        return LocalObjects(folder, signer)
    url = urlsplit(settings.objects_url or "")
    prefix = url.path.strip("/")
    try:
        # Half a second, which only those pay who need it.
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415
        from google.cloud import storage  # noqa: PLC0415

        from blobhub_server.objects.google import GoogleObjects  # noqa: PLC0415
    except ImportError:
        raise NoObjectStore(
            f"{settings.objects_url} needs Google's library: install blobhub-server[gcs], or unset BLOBHUB_OBJECTS_URL"
        ) from None
    try:
        return GoogleObjects(storage.Client(), url.netloc, f"{prefix}/" if prefix else "")
    except (GoogleAuthError, OSError) as error:
        raise NoObjectStore(f"no credentials for {settings.objects_url}: {error}") from None
