"""Response classes of the routes that page through catalogs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from services.orchestrator.schemas import SelectedView


class Adopted(BaseModel):
    """The version that has the catalog which Airbyte holds."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "connection_id": "8a8b8c8d-8e8f-4a0b-8c1d-2e3f4a5b6c7d",
                    "previous_version": 3,
                    "version_number": 4,
                    "changed": True,
                    "notes": [],
                    "never_selected": [],
                }
            ]
        }
    )

    connection_id: UUID
    previous_version: int
    version_number: int
    changed: bool
    """Whether it is a new version; false if the newest one already has the catalog."""
    notes: list[dict[str, Any]] = []
    """What the destination does with the streams that changed, such as a table that another
    connection writes, too."""
    never_selected: list[SelectedView] = []
    """Fields that Airbyte syncs although the connection's policy never selects them."""


class StreamView(BaseModel):
    """A stream of a catalog version, without its fields."""

    name: str
    namespace: str | None = None
    selected: bool
    sync_mode: str | None = None
    destination_sync_mode: str | None = None
    cursor_field: list[str] | None = None
    """The configured cursor, else the source's; null without one."""
    primary_key: list[list[str]]
    """The configured key, else the source's."""
    fields: int
    """The number of top-level fields in the version."""
    selected_fields: int
    mappers: int


class StreamPage(BaseModel):
    """Streams by namespace and name; `next` is the next page's `after`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {
                            "name": "Account",
                            "namespace": None,
                            "selected": True,
                            "sync_mode": "incremental",
                            "destination_sync_mode": "append_dedup",
                            "cursor_field": ["SystemModstamp"],
                            "primary_key": [["Id"]],
                            "fields": 312,
                            "selected_fields": 297,
                            "mappers": 0,
                        }
                    ],
                    "next": "W251bGwsIkFjY291bnQiXQ",
                }
            ]
        }
    )

    items: list[StreamView]
    next: str | None = None


class FieldView(BaseModel):
    """A top-level field of a stream."""

    name: str
    type: dict[str, Any]
    """Its type as in a diff, for example `{"type": ["null", "string"]}`."""
    selected: bool
    is_cursor: bool
    is_key: bool


class FieldPage(BaseModel):
    """Fields by name; `next` is the next page's `after`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {
                            "name": "SystemModstamp",
                            "type": {"type": ["null", "string"], "format": "date-time"},
                            "selected": True,
                            "is_cursor": True,
                            "is_key": False,
                        }
                    ],
                    "next": None,
                }
            ]
        }
    )

    items: list[FieldView]
    next: str | None = None


class CatalogDiff(BaseModel):
    """What changed between two catalog versions, per stream, field and setting."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "from_version": 1,
                    "to_version": 2,
                    "schema_changes": [
                        {
                            "kind": "field_added",
                            "stream": {"namespace": None, "name": "Account"},
                            "path": ["Region__c"],
                        }
                    ],
                    "config_changes": [],
                    "next": None,
                }
            ]
        }
    )

    from_version: int
    to_version: int
    schema_changes: list[dict[str, Any]]
    config_changes: list[dict[str, Any]]
    next: str | None = None
    """With `limit`, the next page's `after`; null on the last page."""
