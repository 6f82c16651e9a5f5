"""Looks up credentials by reference: as documents, and as Salesforce's configuration.

Secret values are returned only in the response: never in a log, error or event. Every request is
recorded before it is answered.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, TypeVar

import structlog

from services.auth_broker import audit_queries, salesforce
from services.auth_broker.settings import StoreName
from services.auth_broker.stores import CredentialStore
from shared.auth.scopes import Caller
from shared.credential_digests import version_of
from shared.credential_documents import Credential, CredentialVersion
from shared.database import Database
from shared.errors import AamError, Forbidden, Invalid, NotFound, Unauthenticated, Unavailable
from shared.observability import logs
from shared.source_types import CREDENTIAL_REFERENCE

log = logs.get(__name__)
T = TypeVar("T")


class TokenReplayed(Unauthenticated):
    """The service token was used before, so it may have been intercepted."""

    code = "token_replayed"


class AuthBroker:
    """Turns a credential's reference into its values."""

    def __init__(
        self, stores: Mapping[StoreName, CredentialStore], default: StoreName, db: Database
    ) -> None:
        self._stores = stores
        self._default = default
        self._db = db

    async def document(self, caller: Caller, source_type_name: str, reference: str) -> Credential:
        """A credential's values as they are stored, in clear text, for any source type.

        Every request is recorded first, including refused ones; `source_type_name` is only for
        that record.

        Raises:
            Forbidden: the caller's token is not for this credential.
            TokenReplayed: the token was used before.
            NotFound: there is no such credential.
            Invalid: what is stored is not a document; `variable` names where.
            UpstreamDenied: the store does not let the broker read it.
            Unavailable: the store or the registry is unavailable.
        """
        return await self._recorded(caller, source_type_name, reference, self._credential)

    async def salesforce_config(self, caller: Caller, reference: str) -> dict[str, Any]:
        """As `get_salesforce_config`, for a caller: recorded first, as `document`.

        Raises:
            Forbidden, TokenReplayed, NotFound, UpstreamDenied, Unavailable: as `document`.
            Invalid: the credential is incomplete or invalid; `variable` names where.
        """
        return await self._recorded(caller, "Salesforce", reference, self.get_salesforce_config)

    async def get_salesforce_config(self, credential_id: str) -> dict[str, Any]:
        """The Salesforce connector's configuration, for the broker itself; not recorded.

        Raises:
            NotFound, UpstreamDenied, Unavailable: as `document`.
            Invalid: the credential is incomplete or invalid; `variable` names where.
        """
        credential = await self._credential(credential_id)
        return salesforce.configuration(credential)

    async def versions(
        self, caller: Caller, references: Collection[str], *, key: str
    ) -> list[CredentialVersion]:
        """Each credential's version and expiry, in order; one that cannot be read has a code.

        The version is the store's own, or a digest of the values under `key`. Not recorded: no
        value is returned. A store that is unavailable is not called again for the others.

        Raises:
            Forbidden: the caller's token is for reading one credential, once.
        """
        if caller.credential_id is not None:
            raise Forbidden("The token is valid only for one credential.", code="wrong_credential")
        unavailable: set[StoreName] = set()
        found = []
        for reference in references:
            try:
                found.append(await self._version(reference, key, unavailable))
            except AamError as error:
                found.append(CredentialVersion(reference, code=error.code))
        return found

    async def _version(
        self, reference: str, key: str, unavailable: set[StoreName]
    ) -> CredentialVersion:
        name, credential_id = self._split(reference)
        if name in unavailable:
            raise Unavailable(f"Store {name} is unavailable.", code="store_unavailable")
        try:
            stored = await self._store(name).stored(credential_id)
        except Unavailable:
            # One credential's files can be unreadable while the others' are not.
            try:
                await self._store(name).ping()
            except Unavailable:
                unavailable.add(name)
            raise
        if not stored.document:
            raise _not_found(reference)
        version = stored.version or version_of(stored.document, reference=reference, key=key)
        return CredentialVersion(reference, version, stored.expires_at)

    def _store(self, name: StoreName) -> CredentialStore:
        store = self._stores.get(name)
        if store is None:
            raise Invalid(f"The auth_broker has no store {name}.", code="store_not_configured")
        return store

    async def _credential(self, reference: str) -> Credential:
        name, credential_id = self._split(reference)
        store = self._store(name)
        document = await store.document(credential_id)
        if not document:
            raise _not_found(reference)
        return Credential(dict(document), store.naming(credential_id))

    async def _recorded(
        self,
        caller: Caller,
        source_type_name: str,
        reference: str,
        read: Callable[[str], Awaitable[T]],
    ) -> T:
        try:
            _require_token_for(caller, reference)
            found = await read(reference)
        except AamError as error:
            await self._record(caller, source_type_name, reference, error.code)
            raise
        await self._record(caller, source_type_name, reference, "granted")
        return found

    def _split(self, reference: str) -> tuple[StoreName, str]:
        """The store and the id of `salesforce-prod` or `vault:salesforce-prod`."""
        found = re.fullmatch(CREDENTIAL_REFERENCE, reference)
        if found is None:
            raise Invalid(
                "A credential id must match [a-z0-9][a-z0-9-]*.", code="invalid_credential_id"
            )
        store, _, credential_id = reference.rpartition(":")
        for name in _STORES:
            if store == name:
                return name, credential_id
        return self._default, credential_id

    async def _record(
        self, caller: Caller, source_type_name: str, reference: str, result: str
    ) -> None:
        """Record who requested what, before anything is returned.

        Raises:
            TokenReplayed: the token was recorded before.
            Unavailable: the registry is unavailable.
        """
        request_id = structlog.contextvars.get_contextvars().get("request_id", "")
        async with self._db.transaction() as session:
            is_new = await audit_queries.record_credential_read(
                session,
                caller=caller.name,
                token_id=caller.token_id or "",
                credential_id=reference,
                source_type=source_type_name,
                result=result,
                request_id=request_id,
            )
        log.info("credential_requested", credential=reference, code=result, is_new=is_new)
        if not is_new:
            raise TokenReplayed("This token has already been used.")


_STORES: tuple[StoreName, ...] = ("env", "file", "vault")


def _not_found(reference: str) -> NotFound:
    return NotFound(f"No credential {reference}.", code="credential_not_found")


def _require_token_for(caller: Caller, reference: str) -> None:
    """Check that the caller's token is for exactly this credential."""
    if caller.token_id is None or caller.credential_id != reference:
        raise Forbidden("The token is valid only for another credential.", code="wrong_credential")
