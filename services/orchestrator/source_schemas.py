"""Request and response schemas of source types, checks and previews."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from services.orchestrator.schemas import SourceOrder

SOURCE_TYPE: dict[str, Any] = {
    "id": "b117307c-14b6-41aa-9422-947e34922962",
    "name": "Salesforce",
    "version": "2.10.3",
    "support_level": "certified",
    "documentation_url": "https://docs.airbyte.com/integrations/sources/salesforce",
    "is_custom": False,
}


class SourceTypeView(BaseModel):
    """A source connector that an Airbyte workspace can use."""

    model_config = ConfigDict(json_schema_extra={"examples": [SOURCE_TYPE]})

    id: UUID
    """Airbyte's `sourceDefinitionId`."""
    name: str
    """Not unique: custom connectors may have any name."""
    version: str
    """The tag of the connector's image."""
    support_level: str | None = None
    """`certified`, `community`, `archived` or `none`; null where this Airbyte does not give it."""
    documentation_url: str | None = None
    is_custom: bool


class SourceTypePage(BaseModel):
    """Source types, ordered by name; pass `next` as `after` to get the following page."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [SOURCE_TYPE], "next": None}]}
    )

    items: list[SourceTypeView]
    next: str | None = None


class SpecificationView(BaseModel):
    """What a connector needs to be configured."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": SOURCE_TYPE["id"],
                    "name": "Salesforce",
                    "version": "2.10.3",
                    "documentation_url": SOURCE_TYPE["documentation_url"],
                    "specification": {
                        "type": "object",
                        "required": ["client_id", "client_secret", "refresh_token"],
                        "properties": {
                            "client_id": {"type": "string"},
                            "client_secret": {"type": "string", "airbyte_secret": True},
                            "refresh_token": {"type": "string", "airbyte_secret": True},
                            "start_date": {"type": "string"},
                        },
                    },
                    "secret_paths": ["$.client_secret", "$.refresh_token"],
                }
            ]
        }
    )

    id: UUID
    name: str
    version: str
    documentation_url: str | None = None
    specification: dict[str, Any]
    """The connector's own JSON Schema (draft-07), with each `$ref` replaced by its target."""
    secret_paths: list[str]
    """What must come from the credential; `[*]` stands for any item and `*` for any member."""


class Trial(SourceOrder):
    """The request to try a configuration out, without onboarding it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"source_type": "Salesforce", "credential_id": "salesforce-prod"}]
        },
    )

    workspace_id: UUID | None = Field(
        default=None,
        description="The Airbyte workspace in which it is tried. Default: the one that AAM uses.",
    )


class TrialNote(BaseModel):
    """Something that needs attention, although it succeeded."""

    code: str
    message: str


class CheckedView(BaseModel):
    """A source that can be reached; if it cannot, the response is 422 `check_failed`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "succeeded", "notes": []}]}
    )

    status: Literal["succeeded"]
    notes: list[TrialNote]


class FieldView(BaseModel):
    """A top-level field of a stream."""

    name: str
    types: list[str]
    """JSON types, such as `string` and `null`; empty where the schema names none."""


class StreamView(BaseModel):
    """A stream that the source offers."""

    name: str
    namespace: str | None = None
    sync_modes: list[str]
    primary_key: list[list[str]]
    """The paths of the key's fields; empty where the source defines none."""
    cursor: list[str]
    """The path of the default cursor field; empty if there is no such field."""
    is_cursor_fixed: bool
    """Whether only that cursor can be used."""
    fields: list[FieldView]
    """At most 500."""
    field_count: int


class PreviewedView(BaseModel):
    """What a source would offer; at most 1,000 streams are listed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {
                            "name": "Account",
                            "namespace": None,
                            "sync_modes": ["full_refresh", "incremental"],
                            "primary_key": [["Id"]],
                            "cursor": ["SystemModstamp"],
                            "is_cursor_fixed": True,
                            "fields": [{"name": "Id", "types": ["string", "null"]}],
                            "field_count": 1,
                        }
                    ],
                    "next": None,
                    "streams": 1,
                    "notes": [],
                }
            ]
        }
    )

    items: list[StreamView]
    next: None = Field(default=None, description="Always null: there is one page.")
    streams: int
    """How many streams the source offers."""
    notes: list[TrialNote]
