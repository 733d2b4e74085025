"""A folder of a bucket of Google Cloud Storage, by Google's library: a call is a request, tried again where that is safe.

All of it blocks. Names are below the folder. What is written has its CRC32C compared by Google; what is written twice is
the same, so every request may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import uuid4

import google.auth.credentials
import google.auth.exceptions
import google.auth.transport.requests
import requests
import urllib3.exceptions
from google.api_core import exceptions
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from blobhub_server.errors import StorageUnavailable

Value = TypeVar("Value")

CHUNK_BYTES = 8 << 20
"""How much a resumable upload sends at once."""
_RETRY = DEFAULT_RETRY.with_timeout(30.0)
_TIMEOUT = (5.0, 30.0)
"""Seconds to connect, and to wait for bytes."""
_ERRORS = (
    exceptions.GoogleAPIError,
    google.auth.exceptions.GoogleAuthError,
    requests.RequestException,
    urllib3.exceptions.HTTPError,  # of bytes that are read as they come, around `requests`
    DataCorruption,
    InvalidResponse,
    OSError,
)


class Missing(Exception):
    """There is nothing of that name."""


class Unmet(Exception):
    """What is there is not of the generation that was named."""


def translated(work: Callable[[], Value]) -> Callable[[], Value]:
    """The same work, with StorageUnavailable in place of the errors of Google's library."""

    def call() -> Value:
        try:
            return work()
        except _ERRORS as error:
            raise StorageUnavailable from error

    return call


class Bucket:
    """The objects of a bucket whose names begin with a prefix, which is left out here."""

    def __init__(self, client: storage.Client, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = client.bucket(bucket)
        self._prefix = prefix

    def new_id(self) -> str:
        """The id of an upload that nobody knows."""
        return str(uuid4())

    def look_at(self, name: str) -> tuple[int, int]:
        """Size and generation of an object. Raises Missing."""
        blob = self._blob(name)
        with _outcomes():
            blob.reload(timeout=_TIMEOUT, retry=_RETRY)
        return int(blob.size), int(blob.generation)

    def crc32c(self, name: str, generation: int) -> str:
        """What Google says is the CRC32C of an object, in base64. Raises Missing, Unmet."""
        blob = self._blob(name)
        with _outcomes():
            blob.reload(timeout=_TIMEOUT, retry=_RETRY, if_generation_match=generation)
        return str(blob.crc32c)

    def read(self, name: str, *, start: int = 0, end: int | None = None, generation: int | None = None) -> bytes:
        """The bytes from `start` up to `end`. Raises Missing, Unmet."""
        last = None if end is None else end - 1
        with _outcomes():
            data: bytes = self._blob(name).download_as_bytes(
                start=start,
                end=last,
                raw_download=True,
                checksum=None,
                if_generation_match=generation,
                timeout=_TIMEOUT,
                retry=_RETRY,
            )
        return data

    def write(self, name: str, data: bytes) -> None:
        """Store an object at once."""
        self._blob(name).upload_from_string(data, checksum="crc32c", timeout=_TIMEOUT, retry=_RETRY)

    def open(self, name: str) -> storage.fileio.BlobWriter:
        """A file to write an object to by a resumable upload; the object is there once it is closed."""
        return self._blob(name).open(
            "wb", chunk_size=CHUNK_BYTES, ignore_flush=True, checksum="crc32c", timeout=_TIMEOUT, retry=_RETRY
        )

    def abandon(self, stream: storage.fileio.BlobWriter) -> None:
        """End a resumable upload without an object, unless it has one already."""
        if not stream.closed:
            try:
                stream.terminate()
            finally:
                # An open one would be closed when it is collected as garbage, which sends what it has and makes the object.
                stream._buffer.close()

    def copy(self, name: str, target: str, generation: int | None = None) -> None:
        """Store an object under another name, without its bytes coming here. Raises Missing, Unmet."""
        token = None
        with _outcomes():
            while True:
                token, _, _ = self._blob(target).rewrite(
                    self._blob(name),
                    token=token,
                    if_source_generation_match=generation,
                    timeout=_TIMEOUT,
                    retry=_RETRY,
                )
                if token is None:
                    return

    def compose(self, name: str, sources: Sequence[tuple[str, int]]) -> tuple[int, int]:
        """Make an object of others, each of a generation; return its size and generation. Raises Missing, Unmet."""
        blob = self._blob(name)
        with _outcomes():
            blob.compose(
                [self._blob(source) for source, _ in sources],
                if_source_generation_match=[generation for _, generation in sources],
                timeout=_TIMEOUT,
                retry=_RETRY,
            )
        return self.look_at(name)

    def delete(self, name: str, generation: int | None = None) -> None:
        """Remove an object, if it is there. Raises Unmet."""
        try:
            with _outcomes():
                self._blob(name).delete(if_generation_match=generation, timeout=_TIMEOUT, retry=_RETRY)
        except Missing:
            return

    def below(self, folder: str, *, after: str = "") -> Iterator[Any]:
        """What is in a folder, by name, from the first one that is not before `after`."""
        for blob in self._client.list_blobs(
            self._bucket,
            prefix=self._prefix + folder,
            start_offset=self._prefix + folder + after,
            timeout=_TIMEOUT,
            retry=_RETRY,
        ):
            blob.name = blob.name.removeprefix(self._prefix)
            yield blob

    def folders(self, folder: str, after: str, limit: int) -> list[str]:
        """So many names of folders in a folder at most, those after one."""
        begin = self._prefix + folder
        pages = self._client.list_blobs(
            self._bucket, prefix=begin, start_offset=begin + after, delimiter="/", timeout=_TIMEOUT, retry=_RETRY
        ).pages
        found: list[str] = []
        for page in pages:
            names = (name.removeprefix(begin).rstrip("/") for name in page.prefixes)
            found += sorted(name for name in names if name > after)
            if len(found) >= limit:
                break
        return found[:limit]

    def sign(self, name: str, method: str, headers: Mapping[str, str], expire_time: datetime) -> str:
        """A V4 signed URL. Credentials without a private key have Google sign it."""
        credentials = self._client._credentials
        signing: dict[str, Any] = {"credentials": credentials}
        if not isinstance(credentials, google.auth.credentials.Signing):
            if not credentials.valid:
                credentials.refresh(google.auth.transport.requests.Request())
            signing = {"service_account_email": credentials.service_account_email, "access_token": credentials.token}
        url: str = self._blob(name).generate_signed_url(
            version="v4",
            method=method,
            headers=dict(headers),
            expiration=expire_time,
            api_access_endpoint=self._client._connection.API_BASE_URL,
            **signing,
        )
        return url

    def _blob(self, name: str) -> Any:
        return self._bucket.blob(self._prefix + name)


class _outcomes:
    """Raises Missing and Unmet in place of Google's errors of that meaning."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, exceptions.NotFound):
            raise Missing from None
        if isinstance(error, exceptions.PreconditionFailed):
            raise Unmet from None
