"""The supported source types: Airbyte's definition of each, and its configuration.

A new one needs a class and an entry in SOURCE_TYPES. Secrets only pass through here on their way
from the auth_broker's store to its response.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from shared.domain.did_you_mean import did_you_mean
from shared.errors import Invalid

CREDENTIAL_REFERENCE = r"^(?:(?:env|file|vault):)?[a-z0-9][a-z0-9-]{0,62}$"
"""A credential's id, prefixed with its store unless that is the auth_broker's default.

No underscores, so that no two ids share an environment variable: `a-b` is A_B, `a_b` is invalid.
"""


class Configuration(BaseModel):
    """A connector's configuration, under the connector's own names.

    Each field is read from the credential's variable with the same name in capitals.
    """

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


def _empty_is_absent(value: object) -> object:
    return None if value == "" else value


class Salesforce(Configuration):
    """airbyte/source-salesforce, by the specification of version 2.10.3."""

    client_id: str = Field(min_length=1)
    client_secret: str = Field(min_length=1)
    refresh_token: str = Field(min_length=1)
    auth_type: Literal["Client"] = "Client"
    is_sandbox: bool = False
    start_date: Annotated[
        str | None,
        BeforeValidator(_empty_is_absent),
        Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?$"),
    ] = None
    """Only rows changed on or after it are read; None for the connector's default, two years."""


class HardcodedRecords(Configuration):
    """airbyte/source-hardcoded-records: fixed rows, no network, no credential."""

    count: int = Field(default=1000, ge=1)
    """Rows per stream."""


@dataclass(frozen=True, slots=True)
class SourceType:
    """A kind of source: its name in the API, and its connector in Airbyte."""

    name: str
    definition_id: UUID
    """Airbyte's `sourceDefinitionId`."""
    configuration: type[Configuration]
    needs_credential: bool
    renewed_fields: frozenset[str] = frozenset()
    """Fields that the connector may renew itself, since each value is valid only once."""


SOURCE_TYPES = {
    source_type.name: source_type
    for source_type in (
        SourceType(
            name="Salesforce",
            definition_id=UUID("b117307c-14b6-41aa-9422-947e34922962"),
            configuration=Salesforce,
            needs_credential=True,
            # An org can be configured to issue a new refresh token with each login.
            renewed_fields=frozenset({"refresh_token"}),
        ),
        SourceType(
            name="Hardcoded Records",
            definition_id=UUID("084124ab-22db-4019-b36d-630418541bf7"),
            configuration=HardcodedRecords,
            needs_credential=False,
        ),
    )
}

RENEWING = frozenset(one.name for one in SOURCE_TYPES.values() if one.renewed_fields)
"""The source types whose connectors renew their own tokens."""


def find(name: str) -> SourceType:
    """A source type by its name.

    Raises:
        Invalid: it is not a known source type.
    """
    found = SOURCE_TYPES.get(name)
    if found is None:
        known = ", ".join(sorted(SOURCE_TYPES))
        raise Invalid.of(
            "source_type",
            f"Unknown source_type{did_you_mean(name, SOURCE_TYPES)} Known types are: {known}.",
            code="unknown_source_type",
        )
    return found
