"""A change of a connector's version, as the schema_observer and the drift_repair_agent show it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

STEP: dict[str, Any] = {
    "from_version": "2.10.3",
    "to_version": "3.0.0",
    "from_manifest": None,
    "to_manifest": None,
    "breaking_changes": [
        {
            "version": "3.0.0",
            "guide": "https://docs.airbyte.com/integrations/sources/salesforce-migrations",
        }
    ],
}


class MigrationGuide(BaseModel):
    """A breaking change of a connector; `guide` is the URL of its migration guide, if known."""

    version: str
    guide: str | None = None


class ConnectorStep(BaseModel):
    """A change of the connector's version that came with a change of the schema.

    It may have caused it.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [STEP]})

    from_version: str
    to_version: str
    from_manifest: int | None = None
    """The manifest of a connector that was made in the connector builder; null for others."""
    to_manifest: int | None = None
    breaking_changes: list[MigrationGuide]
    """Known breaking changes between the two versions, oldest first."""
