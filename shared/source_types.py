"""The source types that AAM knows by itself, as data; Airbyte's definitions name all others."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

CREDENTIAL_REFERENCE = r"^(?:(?:env|file|vault):)?[a-z0-9][a-z0-9-]{0,62}$"
"""A credential's id, prefixed with its store unless that is the auth_broker's default.

No underscores, so that no two ids share an environment variable: `a-b` is A_B, `a_b` is invalid.
"""


@dataclass(frozen=True, slots=True)
class SourceType:
    """A kind of source: its name in the API, and its connector in Airbyte."""

    name: str
    definition_id: UUID
    """Airbyte's `sourceDefinitionId`."""
    renewed_fields: frozenset[str] = frozenset()
    """Fields that the connector may renew itself, since each value is valid only once."""


SOURCE_TYPES = {
    source_type.name: source_type
    for source_type in (
        SourceType(
            "Salesforce",
            UUID("b117307c-14b6-41aa-9422-947e34922962"),
            # An org can be configured to issue a new refresh token with each login.
            renewed_fields=frozenset({"refresh_token"}),
        ),
        SourceType("Hardcoded Records", UUID("084124ab-22db-4019-b36d-630418541bf7")),
    )
}
"""By name; these names always mean these definitions."""
BY_DEFINITION = {one.definition_id: one for one in SOURCE_TYPES.values()}

RENEWING = frozenset(one.name for one in SOURCE_TYPES.values() if one.renewed_fields)
"""The source types whose connectors renew their own tokens."""


def from_row(name: str, definition_id: UUID | None) -> SourceType:
    """The source type of a row; `definition_id` is None in rows from before it was recorded.

    Raises:
        ValueError: the name is unknown, and there is no id.
    """
    known = SOURCE_TYPES.get(name) if definition_id is None else BY_DEFINITION.get(definition_id)
    if known is not None:
        return known
    if definition_id is None:
        raise ValueError(f"The source type {name} has no definition id.")
    return SourceType(name, definition_id)
