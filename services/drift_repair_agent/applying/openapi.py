"""OpenAPI description of the request that applies a catalog and of its response."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from services.drift_repair_agent.states.schemas import OUTCOME, StateOutcome, StreamName
from shared.models import ConnectionStatus

_STREAM: dict[str, Any] = {
    "stream": {
        "name": "Account",
        "jsonSchema": {
            "type": "object",
            "properties": {
                "Id": {"type": ["string", "null"]},
                "SystemModstamp": {"type": ["string", "null"], "format": "date-time"},
            },
        },
        "supportedSyncModes": ["full_refresh", "incremental"],
        "sourceDefinedCursor": True,
        "defaultCursorField": ["SystemModstamp"],
        "sourceDefinedPrimaryKey": [["Id"]],
    },
    "config": {
        "syncMode": "incremental",
        "cursorField": ["SystemModstamp"],
        "destinationSyncMode": "append_dedup",
        "primaryKey": [["Id"]],
        "selected": True,
    },
}


_ID = {"type": "string", "format": "uuid"}


BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["connection_id", "sync_catalog"],
                    "properties": {
                        "connection_id": _ID,
                        "sync_catalog": {
                            "type": "object",
                            "required": ["streams"],
                            "description": "Airbyte's syncCatalog; unselected streams are dropped.",
                            "properties": {"streams": {"type": "array", "minItems": 1}},
                        },
                        "expected_version": {
                            "type": ["integer", "null"],
                            "description": (
                                "The head version that you read; with any other, the response is "
                                "409."
                            ),
                        },
                        "snapshot_id": {
                            **_ID,
                            "type": ["string", "null"],
                            "description": (
                                "The discovery that it was made from, as in /discover's response."
                            ),
                        },
                        "accept_clashes": {
                            "type": "boolean",
                            "default": False,
                            "description": (
                                "Whether a field or stream may get another name in the destination "
                                "because its own is taken or reserved, or the column that a "
                                "removed field has left. Without it, the response is "
                                "422 `destination_cannot_hold`, as it always is for what fails the "
                                "sync or mixes values."
                            ),
                        },
                        "on_global_state": {
                            "type": ["string", "null"],
                            "enum": ["refresh", "accept_gap", None],
                            "description": (
                                "What to do about streams that are selected again while the "
                                "connection's state in Airbyte is global (CDC): `refresh` reads "
                                "them from their start again and merges the rows, `accept_gap` "
                                "resumes them without what changed meanwhile. Without it, the "
                                "response is 409 `global_state`."
                            ),
                        },
                        "notes": {
                            "type": "array",
                            "description": "Notes of /discover; ignored.",
                        },
                    },
                },
                "example": {
                    "connection_id": "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f",
                    "expected_version": 1,
                    "sync_catalog": {"streams": [_STREAM]},
                },
            }
        },
    }
}


class Applied(BaseModel):
    """The catalog is in force in Airbyte, and recorded in the registry."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "connection_id": "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f",
                    "previous_version": 1,
                    "version_number": 2,
                    "status": "ACTIVE",
                    "changed": True,
                    "resumed": [],
                    "refreshed": [],
                    "refresh_job": None,
                    "sync_state": OUTCOME,
                }
            ]
        }
    )

    connection_id: UUID
    previous_version: int
    version_number: int
    status: ConnectionStatus
    changed: bool
    """False if the catalog is equivalent to the version before; nothing was done then."""
    resumed: list[StreamName] = []
    """Streams that were selected again and resume from the sync state that Airbyte kept."""
    refreshed: list[StreamName] = []
    """Streams that are read from their start again, by `on_global_state`."""
    refresh_job: int | None = None
    """Airbyte's id of the refresh; null without one, or if Airbyte starts it with the next job,
    because the connection is inactive or another job is running."""
    sync_state: StateOutcome | None = None
    """Whether Airbyte's state of the connection was saved before, and what was put back; null if
    nothing was done."""
