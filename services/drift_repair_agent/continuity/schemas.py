"""Request and response classes about the columns that renamed fields keep."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.drift_repair_agent.states.schemas import StreamName

_CONNECTION_ID = "9f8e7d6c-5b4a-4392-8170-6f5e4d3c2b1a"
_STREAM: dict[str, Any] = {"namespace": None, "name": "Account"}
_Name = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class KeptColumn(BaseModel):
    """A field that a mapper writes into a column of another name."""

    stream: StreamName
    field: str
    """Its name in the source."""
    column: str
    """The name under which the destination, and the mappers after it, get the field."""
    if_adopted: list[str]
    """What happens if the field's own name is adopted."""


class KeptColumns(BaseModel):
    """The renamed fields of a connection whose old column is kept."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "connection_id": _CONNECTION_ID,
                    "version": 4,
                    "items": [
                        {
                            "stream": _STREAM,
                            "field": "Amount__c",
                            "column": "Total__c",
                            "if_adopted": [
                                "'Amount__c' of Account is written into a new column of its own "
                                "name: rows synced before have no value in it until the stream is "
                                "refreshed."
                            ],
                        }
                    ],
                }
            ]
        }
    )

    connection_id: UUID
    version: int
    """The catalog version that has the mappers."""
    items: list[KeptColumn]


class AdoptName(BaseModel):
    """A request to write a renamed field into a column of its own name."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"stream": _STREAM, "field": "Amount__c", "expected_version": 4}]
        },
    )

    stream: StreamName
    field: _Name
    """The field's name in the source."""
    expected_version: int = Field(strict=True, ge=1, le=2**31 - 1)
    """The version that GET /connections/{id}/kept-columns was read from."""
