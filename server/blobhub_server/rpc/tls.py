"""TLS: the certificate that the server shows, and the one that it may ask of clients, read again when their files change."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from blobhub_server.config import Settings
from blobhub_server.start import StartError

log = structlog.get_logger()


class BadCertificate(StartError):
    """The files for TLS cannot be read, or do not fit together."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of a certificate with its chain, of its key, and, for mutual TLS, of the authorities of clients; all PEM."""

    certificate: Path
    key: Path
    client_ca: Path | None

    @classmethod
    def from_settings(cls, settings: Settings) -> TlsFiles | None:
        """The files that settings name; None where the server speaks in clear."""
        certificate, key = settings.tls_certificate_file, settings.tls_key_file
        if certificate is None or key is None:
            return None
        return cls(certificate=certificate, key=key, client_ca=settings.tls_client_ca_file)

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials for a server, which read the files again when they have changed.

        New connections get the new certificate, and open ones go on. Files that do not fit together, as while one of them is
        being replaced, leave the last ones in force. Raises BadCertificate.
        """
        seen, initial, told = self._stamp(), self._read(), ""

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal seen, told
            try:
                now = self._stamp()
                if now == seen:
                    return None
                seen = now
                made = self._read()
            except BadCertificate as error:
                if str(error) != told:
                    log.warning("tls_files_not_read", error=str(error))
                told = str(error)
                return None
            told = ""
            log.info("tls_files_read_again")
            return made

        client_auth = self.client_ca is not None
        # None says that nothing has changed, which the stubs of grpcio do not know.
        fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", changed)
        return grpc.dynamic_ssl_server_credentials(initial, fetch, require_client_authentication=client_auth)

    def context(self) -> ssl.SSLContext:
        """The same for Python's own TLS: each handshake has the files as they are then. Raises BadCertificate."""
        seen, current = self._stamp(), self._context()

        def take_current(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            nonlocal seen, current
            try:
                now = self._stamp()
                if now != seen:
                    seen, current = now, self._context()
            except BadCertificate as error:
                log.debug("tls_files_not_read", error=str(error))  # The other port warns of it.
            connection.context = current

        outer = self._context()
        outer.sni_callback = take_current
        return outer

    def _context(self) -> ssl.SSLContext:
        self._read()
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            made.load_cert_chain(self.certificate, self.key)
            if self.client_ca is not None:
                made.load_verify_locations(self.client_ca)
                made.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            raise BadCertificate(f"the files for TLS cannot be used: {error}") from None
        return made

    def leaf(self) -> bytes:
        """The server's own certificate, in DER. Raises BadCertificate."""
        return _certificates(self.certificate, _bytes(self.certificate))[0].public_bytes(Encoding.DER)

    def _paths(self) -> Sequence[Path]:
        return [path for path in (self.certificate, self.key, self.client_ca) if path is not None]

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        """What changes when a file does. Raises BadCertificate."""
        try:
            return tuple((found.st_mtime_ns, found.st_size, found.st_ino) for found in map(Path.stat, self._paths()))
        except OSError as error:
            raise BadCertificate(f"cannot read {error.filename}: {error.strerror}") from None

    def _read(self) -> grpc.ServerCertificateConfiguration:
        chain, key = _bytes(self.certificate), _bytes(self.key)
        leaf = _certificates(self.certificate, chain)[0]
        if _public(leaf) != _public_of_key(self.key, key):
            raise BadCertificate(f"the key in {self.key} is not that of the certificate in {self.certificate}")
        authorities = None
        if self.client_ca is not None:
            authorities = _bytes(self.client_ca)
            _certificates(self.client_ca, authorities)
        return grpc.ssl_server_certificate_configuration([(key, chain)], authorities)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadCertificate(f"cannot read {path}: {error.strerror}") from None


def _certificates(path: Path, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise BadCertificate(f"{path} holds no certificate in PEM") from None


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _public_of_key(path: Path, data: bytes) -> bytes:
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError):
        raise BadCertificate(f"{path} holds no private key in PEM without a password") from None
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
