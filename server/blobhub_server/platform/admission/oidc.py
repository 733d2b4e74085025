"""Callers by tokens of an OpenID Connect issuer. The first token of a subject creates its user."""

from __future__ import annotations

from datetime import datetime

from blobhub_server.clock import Clock
from blobhub_server.config import Settings
from blobhub_server.db.engine import Database, IntegrityError
from blobhub_server.http.outbound.message import OutboundError
from blobhub_server.ids import Ids
from blobhub_server.platform.admission.jwks import Jwks, Source, source_of
from blobhub_server.platform.calls.audit import Audit, own_audit_row
from blobhub_server.platform.rules import oidc as rules
from blobhub_server.platform.rules.oidc import Claims, TokenPolicy
from blobhub_server.platform.rules.user import User, new_user
from blobhub_server.platform.store import user as store
from blobhub_server.start import StartError


class OidcTokens:
    """Implements `platform.admission.authentication.Tokens`."""

    def __init__(self, policy: TokenPolicy, jwks: Jwks, db: Database, audit: Audit, clock: Clock, ids: Ids) -> None:
        self._policy = policy
        self._jwks = jwks
        self._db = db
        self._audit = audit
        self._clock = clock
        self._ids = ids

    def claims(self, bearer: str) -> bool:
        return rules.has_form(bearer)

    async def user(self, token: str) -> tuple[User, datetime]:
        header = rules.header(token, self._policy)
        key = await self._jwks.key(header)
        claims = rules.verify(token, key, header, self._policy, self._clock())
        return await self._find_user(claims.subject) or await self._provision(claims), claims.ends

    async def _find_user(self, subject: str) -> User | None:
        async with self._db.read() as tx:
            return await store.get_by_subject(tx, self._policy.issuer, subject)

    async def _provision(self, claims: Claims) -> User:
        """Create the user, unless another call has just done so."""
        now = self._clock()
        made = new_user(
            id=self._ids(),
            name=rules.user_name(self._policy.issuer, claims.subject),
            display_name=claims.display_name,
            issuer=self._policy.issuer,
            subject=claims.subject,
            now=now,
            etag=self._ids(),
        )
        try:
            async with self._db.write() as tx:
                await store.insert(tx, made)
                await self._audit.append(tx, [own_audit_row("oidc", made.id, f"user=@{made.name}")])
        except IntegrityError:
            first = await self._find_user(claims.subject)
            if first is None:
                raise
            return first
        return made


def open_tokens(settings: Settings, db: Database, audit: Audit, clock: Clock, ids: Ids) -> OidcTokens | None:
    """The configured issuer's tokens; None where no issuer is configured. Raises StartError."""
    configured = configuration(settings)
    if configured is None:
        return None
    policy, source = configured
    return OidcTokens(policy, Jwks(source), db, audit, clock, ids)


def configuration(settings: Settings) -> tuple[TokenPolicy, Source] | None:
    """The policy for tokens, and the reader of the issuer's keys; None where no issuer is configured. Raises StartError."""
    if not (settings.oidc_issuer or settings.oidc_audience or settings.oidc_jwks):
        return None
    if not (settings.oidc_issuer and settings.oidc_audience and settings.oidc_jwks):
        raise StartError(
            "BLOBHUB_OIDC_ISSUER, BLOBHUB_OIDC_AUDIENCE and BLOBHUB_OIDC_JWKS go together; not all of them are set"
        )
    try:
        source = source_of(settings.oidc_jwks)
    except OutboundError as error:
        raise StartError(f"BLOBHUB_OIDC_JWKS: {error}") from None
    return TokenPolicy(
        issuer=settings.oidc_issuer, audience=settings.oidc_audience, algorithms=_algorithms(settings.oidc_algorithms)
    ), source


def _algorithms(listed: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in listed.split(",") if name.strip())
    if not names or not set(names) <= rules.KINDS.keys():
        raise StartError(f"BLOBHUB_OIDC_ALGORITHMS: must be some of {', '.join(rules.KINDS)}, with commas between them")
    return names
