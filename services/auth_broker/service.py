"""Looks up credentials by reference and maps them to a connector's configuration.

Secret values are returned only in the response: never in a log, error or event. Every request is
recorded before it is answered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import structlog
from pydantic import ValidationError

from services.auth_broker import audit_queries
from services.auth_broker.settings import StoreName
from services.auth_broker.stores import CredentialStore
from shared import source_types
from shared.auth.scopes import Caller
from shared.database import Database
from shared.errors import AamError, Forbidden, Invalid, NotFound, Unauthenticated
from shared.observability import logs
from shared.source_types import CREDENTIAL_REFERENCE

log = logs.get(__name__)


class TokenReplayed(Unauthenticated):
    """The service token was used before, so it may have been intercepted."""

    code = "token_replayed"


class AuthBroker:
    """Turns a credential's reference into a connector's configuration."""

    def __init__(
        self, stores: Mapping[StoreName, CredentialStore], default: StoreName, db: Database
    ) -> None:
        self._stores = stores
        self._default = default
        self._db = db

    async def connector_config(
        self, caller: Caller, source_type_name: str, reference: str
    ) -> dict[str, Any]:
        """The configuration of a source type's connector, with secrets in clear text.

        Every request is recorded first, including refused ones.

        Raises:
            Forbidden: the caller's token is not for this credential.
            TokenReplayed: the token was used before.
            NotFound: there is no such credential.
            Invalid: the source type is unknown, or the credential is incomplete: `variable` names
                what is missing or invalid.
            UpstreamDenied: the store does not let the broker read it.
            Unavailable: the store or the registry is unavailable.
        """
        try:
            _require_token_for(caller, reference)
            configuration = await self._configuration(source_type_name, reference)
        except AamError as error:
            await self._record(caller, source_type_name, reference, error.code)
            raise
        await self._record(caller, source_type_name, reference, "granted")
        return configuration

    async def get_salesforce_config(self, credential_id: str) -> dict[str, Any]:
        """The Salesforce connector's configuration, for the broker itself; not recorded."""
        return await self._configuration("Salesforce", credential_id)

    async def _configuration(self, source_type_name: str, reference: str) -> dict[str, Any]:
        source_type = source_types.find(source_type_name)
        name, credential_id = self._split(reference)
        store = self._stores.get(name)
        if store is None:
            raise Invalid(f"The auth_broker has no store {name}.", code="store_not_configured")
        variables = await store.variables(credential_id)
        if not variables:
            raise NotFound(f"No credential {reference}.", code="credential_not_found")
        try:
            configuration = source_type.configuration.model_validate(variables)
        except ValidationError as error:
            problem = error.errors()[0]
            variable = store.name_of(credential_id, str(problem["loc"][0]))
            is_missing = problem["type"] == "missing"
            raise Invalid(
                f"{variable} is {'missing' if is_missing else 'invalid'}.",
                code="credential_incomplete" if is_missing else "credential_invalid",
                variable=variable,
            ) from None
        return configuration.model_dump(exclude_none=True)

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
        known = source_type_name in source_types.SOURCE_TYPES
        async with self._db.transaction() as session:
            is_new = await audit_queries.record_credential_read(
                session,
                caller=caller.name,
                token_id=caller.token_id or "",
                credential_id=reference,
                source_type=source_type_name if known else "unknown",
                result=result,
                request_id=request_id,
            )
        log.info("credential_requested", credential=reference, code=result, is_new=is_new)
        if not is_new:
            raise TokenReplayed("This token has already been used.")


_STORES: tuple[StoreName, ...] = ("env", "file", "vault")


def _require_token_for(caller: Caller, reference: str) -> None:
    """Check that the caller's token is for exactly this credential."""
    if caller.token_id is None or caller.credential_id != reference:
        raise Forbidden("The token is valid only for another credential.", code="wrong_credential")
