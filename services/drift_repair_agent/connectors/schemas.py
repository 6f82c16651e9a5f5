"""Request and response classes of connector upgrades."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from services.drift_repair_agent.states.schemas import StateOutcome
from shared.http.connector_step import STEP, ConnectorStep
from shared.http.strict_json import By, Why

_CONNECTION_ID = "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f"
UPGRADED: dict[str, Any] = {
    "connection_id": _CONNECTION_ID,
    "operation_id": "3f8e2d1c-4b5a-4968-8776-a5b4c3d2e1f0",
    "connector_step": STEP,
    "catalog_version": 4,
    "observation": {"outcome": "changed", "code": None},
    "drift_id": "6f0c2f1e-7a1b-4c3d-8e9f-0a1b2c3d4e5f",
    "sync_state": {"saved": True, "not_saved": None, "put_back": [], "not_put_back": []},
    "by": "ada@example.com",
    "reason": "The deadline is on Thursday.",
}


class Upgrade(BaseModel):
    """A request to upgrade the connector of a connection's source."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"reason": "The deadline is on Thursday."}]},
    )

    by: By | None = None
    """Who decides. If left out, the caller, who is recorded in any case."""
    reason: Why | None = None


class Observed(BaseModel):
    """How the observation after the upgrade ended."""

    outcome: str | None = None
    """As in POST /connections/{connection_id}/observe; null if it has not ended, or `code` says
    why it could not be made: then the next scheduled observation finds what has changed."""
    code: str | None = None


class Upgraded(BaseModel):
    """The source runs another version of its connector; what that changed is planned next."""

    model_config = ConfigDict(json_schema_extra={"examples": [UPGRADED]})

    connection_id: UUID
    operation_id: UUID
    connector_step: ConnectorStep
    catalog_version: int
    """The head when the upgrade began; a rollback to it is possible only if the source still has
    what it needs."""
    observation: Observed
    drift_id: UUID | None = None
    """The drift that came with the upgrade; GET /repairs?connection_id= has its repairs."""
    sync_state: StateOutcome
    """Whether Airbyte's state of the connection was saved before."""
    by: str
    reason: str | None = None
