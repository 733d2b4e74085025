"""Which databases a URL can mean."""

from __future__ import annotations

import pytest
from blobhub_server.db.opening import parse_url
from blobhub_server.start import StartError


@pytest.mark.parametrize(
    ("given_url", "backend"),
    [
        ("sqlite:////data/blobhub.db", "sqlite"),
        ("postgresql://someone@db/blobhub", "postgresql"),
        ("postgres://someone@db/blobhub", "postgresql"),
        ("postgresql://postgres:@/postgres?host=/tmp/socket", "postgresql"),
    ],
)
def test_usual_urls_are_understood(given_url, backend):
    assert parse_url(given_url).get_backend_name() == backend


def test_libpq_spelling_of_tls_is_understood():
    assert dict(parse_url("postgresql://db/blobhub?sslmode=require").query) == {"ssl": "require"}


@pytest.mark.parametrize("bad", ["mysql://db/blobhub", "no url", "sqlite://", "sqlite:///:memory:"])
def test_other_urls_are_refused_without_repeating_them(bad):
    with pytest.raises(StartError) as refused:
        parse_url(bad)
    assert bad not in str(refused.value)
