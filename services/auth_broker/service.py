"""Credentials by id, from a store, as the configuration that a connector's specification asks for.

The values never leave by another way than the answer: no log, no error, no event holds one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from dotenv import dotenv_values
from pydantic import ValidationError

from shared import logs, sources
from shared.errors import Invalid, NotFound

log = logs.get(__name__)

CREDENTIAL_ID = r"^[a-z0-9][a-z0-9-]{0,62}$"
"""No underscore, so that no two ids share a variable: `a-b` is A_B, and `a_b` is no id."""


class CredentialStore(Protocol):
    """Where credentials live: the environment, files, a vault."""

    def variables(self, credential_id: str) -> Mapping[str, str]:
        """The credential's variables by name in small letters; empty when there is no such one."""


class EnvironmentStore:
    """Credentials from `CREDENTIAL_<ID>__<VARIABLE>`, standing in for a vault.

    The id `salesforce-prod` reads CREDENTIAL_SALESFORCE_PROD__CLIENT_ID and its siblings.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    @classmethod
    def from_process(cls) -> EnvironmentStore:
        """The process's environment, over a `.env` file where there is one."""
        file = Path(".env")
        written = dotenv_values(file) if file.is_file() else {}
        return cls({name: value for name, value in written.items() if value} | dict(os.environ))

    def variables(self, credential_id: str) -> Mapping[str, str]:
        """The credential's variables; one that is set to nothing counts as missing."""
        prefix = variable_prefix(credential_id)
        return {
            name.removeprefix(prefix).lower(): value
            for name, value in self._environment.items()
            # What has two underscores later on belongs to a longer id, such as `a--b` beside `a`.
            if name.startswith(prefix) and "__" not in name[len(prefix) - 1 :] and value
        }


def variable_prefix(credential_id: str) -> str:
    """What the names of a credential's variables start with."""
    return f"CREDENTIAL_{credential_id.upper().replace('-', '_')}__"


class AuthBroker:
    """Turns a credential id into a connector's configuration."""

    def __init__(self, store: CredentialStore) -> None:
        self._store = store

    def connector_config(self, source_type_name: str, credential_id: str) -> dict[str, Any]:
        """The configuration of a source type's connector, secrets in clear.

        Raises:
            NotFound: there is no such credential.
            Invalid: the source type is unknown, or the credential is incomplete: `variable` names
                what is missing or cannot be meant.
        """
        source_type = sources.find(source_type_name)
        if not re.fullmatch(CREDENTIAL_ID, credential_id):
            raise Invalid("A credential id matches [a-z0-9][a-z0-9-]*.", code="bad_credential_id")
        variables = self._store.variables(credential_id)
        if not variables:
            raise NotFound(f"No credential {credential_id}.", code="credential_not_found")
        try:
            configuration = source_type.configuration.model_validate(variables)
        except ValidationError as error:
            problem = error.errors()[0]
            variable = variable_prefix(credential_id) + str(problem["loc"][0]).upper()
            is_missing = problem["type"] == "missing"
            raise Invalid(
                f"{variable} is {'missing' if is_missing else 'not valid'}.",
                code="credential_incomplete" if is_missing else "credential_invalid",
                variable=variable,
            ) from None
        log.info("credential_read", credential=credential_id, source_type=source_type.name)
        return configuration.model_dump(exclude_none=True)

    def get_salesforce_config(self, credential_id: str) -> dict[str, Any]:
        """The Salesforce connector's configuration; see `connector_config`."""
        return self.connector_config("Salesforce", credential_id)
