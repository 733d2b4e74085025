"""Errors of the HTTP port, as problem details (RFC 9457), with the same reasons as gRPC's."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

from blobhub_server.errors import BlobHubError

_STATUSES = {"NOT_FOUND": 404, "UNAVAILABLE": 503, "RESOURCE_EXHAUSTED": 503, "DATA_LOSS": 500}


class Problem(Exception):
    """What a request is refused with. `detail` says what was wrong and what to do."""

    def __init__(self, status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, error: BlobHubError) -> Problem:
        """The same as gRPC would say."""
        retry = error.retry_after_seconds
        headers = {} if retry is None else {"retry-after": str(max(1, round(retry)))}
        return cls(_STATUSES.get(error.code, 500), error.reason, error.message, headers)

    def response(self) -> Response:
        """The answer. The connection ends with it: what else comes of the request is not read."""
        body = json.dumps({"status": self.status, "reason": self.reason, "detail": self.detail})
        headers = self.headers | {"connection": "close", "cache-control": "no-store"}
        return Response(body + "\n", self.status, headers, media_type="application/problem+json")
