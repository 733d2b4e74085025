"""The server's settings, read from `BLOBHUB_*` and nowhere else. Blob types bring models of their own.

`docs/settings.md` lists all of them.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "BLOBHUB_"
_MAX_PORT = 65_535


class SettingsModel(BaseSettings):
    """A model of settings. Every field is read from the environment variable `BLOBHUB_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)


def variable(name: str) -> str:
    """The environment variable that a field is read from."""
    return f"{PREFIX}{name.upper()}"


def unknown_setting(known: Collection[str]) -> str:
    """What to say of a variable of the environment that nobody reads, which is probably a slip; empty when there is none."""
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    if not unknown:
        return ""
    names = {name.removeprefix(PREFIX): name for name in known}
    near = get_close_matches(unknown[0].upper().removeprefix(PREFIX), names, n=1)
    hint = f"did you mean {names[near[0]]}?" if near else "docs/settings.md lists all there are"
    return f"{unknown[0]} is no setting of the server or its blob types; {hint}"


class Settings(SettingsModel):
    """What an operator can set of the server itself."""

    listen: str = Field("127.0.0.1:7443", description="Address and port to serve gRPC on; port 0 takes a free one.")
    http_listen: str = Field(
        "127.0.0.1:7444",
        description="Address and port of HTTP: `/livez`, `/readyz`, `/metrics`, presigned URLs; port 0 takes a free one.",
    )
    inference_listen: str | None = Field(
        None,
        description="Address of a second gRPC port that has inference alone, with larger messages; unset means none.",
    )
    inference_message_mib: int = Field(
        32, ge=4, le=64, description="How large a message may be there. Everywhere else it has up to 4 MiB."
    )
    http_url: str | None = Field(
        None,
        description="What presigned URLs begin with, such as `https://blobs.example.org`; unset means the address that HTTP "
        "is served on.",
    )
    listen_in_clear: bool = Field(
        False, description="Serve without TLS where other machines can connect; for a server behind something that ends TLS."
    )
    tls_certificate_file: Path | None = Field(
        None, description="The server's certificate and its chain, in PEM; read again when it changes."
    )
    tls_key_file: Path | None = Field(None, description="The certificate's private key, in PEM; read again when it changes.")
    tls_client_ca_file: Path | None = Field(
        None, description="Authorities in PEM that every client needs a certificate of (mutual TLS), beside its key."
    )
    data_dir: Path = Field(Path(".data"), description="Where the SQLite database and the local objects live.")
    objects_url: str | None = Field(
        None,
        description="Where objects are kept: `file:///…`, or `gs://bucket/prefix` for Google Cloud Storage, with its own "
        "default credentials; unset means `objects` in the data directory.",
    )
    database_url: str | None = Field(None, description="`postgresql://…`; unset means SQLite in the data directory.")
    admin_key: SecretStr | None = Field(None, description="The administrator's key; when unset, the first start makes one.")
    master_key: SecretStr | None = Field(
        None, description="Base64 of the 32-byte key that credentials are sealed under; keys that follow it only decrypt."
    )
    master_key_file: Path | None = Field(
        None, description="A file with such keys instead, one a line; unset means `master-key` in the data directory."
    )
    oidc_issuer: str | None = Field(
        None,
        max_length=512,
        description="The OpenID Connect issuer whose tokens are accepted: the `iss` claim they must have.",
    )
    oidc_audience: str | None = Field(None, description="The audience that the `aud` claim of tokens must name.")
    oidc_jwks: str | None = Field(None, description="The issuer's JWK set: an `https://` URL or a file.")
    oidc_algorithms: str = Field(
        "RS256,ES256,EdDSA", description="The signature algorithms that tokens may use, separated by commas."
    )
    log_level: str = Field("info", description="debug, info, warning or error.")
    log_json: bool = Field(False, description="Log lines as JSON instead of text for people.")
    max_concurrent_streams: int = Field(1000, gt=0, description="HTTP/2 streams one connection may have open.")
    max_connection_age_seconds: float = Field(
        3600, gt=0, description="Age at which a connection is closed; the client connects again."
    )
    max_streams_per_caller: int = Field(
        256, gt=0, description="Streams of answers, such as watches, that one caller may have open on this server."
    )
    max_streams_per_address: int = Field(
        64, gt=0, description="The same for everybody at one address who comes without a key, together."
    )
    max_connections: int = Field(1000, gt=0, description="Connections that may be open; further ones are closed at once.")
    max_connection_idle_seconds: float = Field(
        300, gt=0, description="Time without a call after which a connection is closed."
    )
    handshake_seconds: float = Field(
        10, gt=0, description="How long a new connection may take until it speaks HTTP/2, TLS included."
    )
    request_seconds: float = Field(30, gt=0, description="How long a message of a call may take to arrive.")
    keepalive_seconds: float = Field(
        60, gt=0, description="Silence after which a client is pinged; if it says nothing for a third of that, it is gone."
    )
    max_unread_seconds: float = Field(
        60, gt=0, description="How long a stream may wait for its client to read; then it is ended, and can be resumed."
    )
    drain_seconds: float = Field(
        10, ge=0, description="How long running calls may take to finish once a shutdown has begun."
    )
    operations_at_once: int = Field(4, gt=0, description="Operations that this server runs at once; further ones wait.")
    operation_lease_seconds: float = Field(
        15, gt=0, description="Silence of a server after which another one takes over the operations that it runs."
    )
    progress_seconds: float = Field(15, gt=0, description="Idle time after which a watch sends a progress message.")

    @field_validator("listen", "http_listen", "inference_listen")
    @classmethod
    def _has_host_and_port(cls, value: str | None) -> str | None:
        if value is None:
            return value
        host, _, port = value.rpartition(":")
        if not host or not port.isdecimal() or int(port) > _MAX_PORT:
            raise ValueError("expected an address and a port, such as 127.0.0.1:7443 or [::]:7443")
        return value

    @field_validator("objects_url")
    @classmethod
    def _is_of_a_store(cls, value: str | None) -> str | None:
        if value is not None and not re.match("file:///|gs://[^/]", value):
            raise ValueError("expected file:///folder or gs://bucket/prefix")
        return value

    @field_validator("http_url")
    @classmethod
    def _is_url_of_http(cls, value: str | None) -> str | None:
        if value is not None and not re.match("https?://[^/]", value):
            raise ValueError("expected a URL such as https://blobs.example.org")
        return value

    @model_validator(mode="after")
    def _serves_beyond_this_machine_in_tls_alone(self) -> Settings:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("BLOBHUB_TLS_CERTIFICATE_FILE and BLOBHUB_TLS_KEY_FILE go together")
        if self.tls_client_ca_file is not None and self.tls_certificate_file is None:
            raise ValueError("BLOBHUB_TLS_CLIENT_CA_FILE needs BLOBHUB_TLS_CERTIFICATE_FILE and BLOBHUB_TLS_KEY_FILE")
        for listen in filter(None, (self.listen, self.http_listen, self.inference_listen)):
            if self.tls_certificate_file is None and not self.listen_in_clear and not _is_loopback(listen):
                raise ValueError(
                    f"other machines can connect to {listen}, and keys would pass in clear; set "
                    "BLOBHUB_TLS_CERTIFICATE_FILE and BLOBHUB_TLS_KEY_FILE, or BLOBHUB_LISTEN_IN_CLEAR=true"
                )
        return self

    @property
    def url(self) -> str:
        """The database to use, as a URL."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'blobhub.db').absolute()}"

    @property
    def key_file(self) -> Path:
        """Where the master keys are kept, unless they are in the environment."""
        return self.master_key_file or self.data_dir / "master-key"


def _is_loopback(listen: str) -> bool:
    """Whether only this machine can connect to an address."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
