"""Request and response schemas of the orchestrator's API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from services.orchestrator.health_schemas import HealthView
from services.orchestrator.schedule_validation import AirbyteSchedule
from shared.http.strict_json import Name
from shared.models import ConnectionStatus, OperationStatus
from shared.source_types import CREDENTIAL_REFERENCE

_ID = "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f"
_SNAPSHOT_ID = "1c9d8e7f-0a1b-4c2d-8e3f-4a5b6c7d8e9f"

_LARGEST_CONFIGURATION_BYTES = 64 * 1024
_LONGEST_NAME = 200
"""Leaves room for AAM's marker of 43 characters within the 256 of Airbyte's columns."""


def _unmarked(name: str) -> str:
    if "[aam:" in name:
        raise PydanticCustomError("aam_plain_name", "Input should not contain AAM's own marker")
    if len(name) > _LONGEST_NAME:  # composing some characters makes more of them
        raise PydanticCustomError(
            "aam_long_name", f"Input should have at most {_LONGEST_NAME} characters when composed"
        )
    return name


def _each_once(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise PydanticCustomError("aam_stream_twice", "Input should name each stream once")
    return names


def _of_moderate_size(configuration: dict[str, Any]) -> dict[str, Any]:
    if len(msgspec.json.encode(configuration)) > _LARGEST_CONFIGURATION_BYTES:
        raise PydanticCustomError(
            "aam_large_configuration",
            f"Input should have at most {_LARGEST_CONFIGURATION_BYTES} bytes as JSON",
        )
    return configuration


ConnectionName = Annotated[Name, AfterValidator(_unmarked)]
SourceConfiguration = Annotated[dict[str, Any], AfterValidator(_of_moderate_size)]
"""The part of a source's configuration that is not secret."""


class SourceOrder(BaseModel):
    """A source by its type, what is not secret of its configuration, and its credential."""

    model_config = ConfigDict(extra="forbid")

    source_type: str = Field(
        min_length=1,
        max_length=200,
        description="The name or the id of a source definition: see `GET /source-types`.",
    )
    credential_id: str | None = Field(
        default=None,
        pattern=CREDENTIAL_REFERENCE,
        description=(
            "The credential's id: `salesforce-prod` in the auth_broker's default store; `env:…`, "
            "`file:…` or `vault:…` in the named one. Omit it for sources that need none."
        ),
    )
    configuration: SourceConfiguration = Field(
        default={},
        description=(
            "The connector's settings that are not secret, by its specification: see "
            "`GET /source-types/{source_type}/specification`. A secret is refused here: it comes "
            "from the credential."
        ),
    )


class Onboard(SourceOrder):
    """The request to connect a source to a destination."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "source_type": "Salesforce",
                    "connection_name": "Salesforce production",
                    "credential_id": "salesforce-prod",
                    "streams": ["Account", "Contact"],
                }
            ]
        },
    )

    connection_name: ConnectionName
    streams: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=512)]], AfterValidator(_each_once)
        ]
        | None
    ) = Field(
        default=None,
        min_length=1,
        max_length=10_000,
        description="The streams to sync. Default: those that Airbyte suggests, else all.",
    )
    schedule: AirbyteSchedule | None = Field(
        default=None,
        description="When Airbyte syncs on its own. Default: only when AAM starts a sync.",
    )
    destination_id: UUID | None = Field(
        default=None, description="An Airbyte destination. Default: AIRBYTE_DESTINATION_ID."
    )
    destination: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="Instead of `destination_id`: its id, or its name if that is unique.",
    )
    workspace_id: UUID | None = Field(
        default=None,
        description=(
            "The Airbyte workspace whose destinations `destination` names. Default: the one that "
            "AAM uses. The source is always created in the destination's workspace."
        ),
    )
    prefix: str | None = Field(
        default=None,
        max_length=100,
        pattern=r"^[A-Za-z0-9_.-]*$",
        description="What the names of the tables begin with, so that they differ from those of "
        "other connections.",
    )
    namespace_definition: Literal["source", "destination", "customformat"] | None = Field(
        default=None,
        description="Where the tables are: in the source's namespace (the default), the "
        "destination's default, or in `namespace_format`.",
    )
    namespace_format: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9_.${}-]*$",
        description="For `customformat`; `${SOURCE_NAMESPACE}` stands for the source's namespace.",
    )


CONNECTION: dict[str, Any] = {
    "id": _ID,
    "name": "Salesforce production",
    "source_type": "Salesforce",
    "status": "ACTIVE",
    "credential_id": "salesforce-prod",
    "airbyte_source_id": "0b6f3c1e-52a7-4d55-8f7e-3f0c8a6f2f10",
    "airbyte_connection_id": "5a1d2c3b-4e5f-4a6b-8c7d-9e0f1a2b3c4d",
    "airbyte_destination_id": "9c8b7a6d-5e4f-4d3c-9b2a-1f0e9d8c7b6a",
    "airbyte_workspace_id": "2f0c9b8a-7d6e-4c5b-8a49-3827160f5e4d",
    "catalog_version": 1,
    "created_at": "2026-11-22T09:30:00.123456Z",
    "updated_at": "2026-11-22T09:30:04.654321Z",
}


class RecentSync(BaseModel):
    """One of the newest syncs of a connection."""

    status: str
    records: int | None
    """How many it has brought; null if that is not known."""


class ConnectionView(BaseModel):
    """A connection: one source synchronized with one destination."""

    model_config = ConfigDict(json_schema_extra={"examples": [CONNECTION]})

    id: UUID
    name: str
    source_type: str
    status: ConnectionStatus | Literal["ARCHIVED"]
    """ARCHIVED once `archived_at` is set, whatever the status was before."""
    credential_id: str | None = None
    airbyte_source_id: UUID | None = None
    airbyte_connection_id: UUID | None = None
    airbyte_destination_id: UUID
    airbyte_workspace_id: UUID | None = None
    """The Airbyte workspace of its source and destination."""
    catalog_version: int
    failure_code: str | None = None
    failure_detail: str | None = None
    imported: bool = False
    drifted_upstream_at: datetime | None = None
    upstream_code: str | None = None
    """How Airbyte differs: catalog_differs, upstream_missing, paused, resumed, breaking_change,
    locked or status_unknown."""
    paused_by: UUID | None = None
    """The undecided repair for which AAM paused it in Airbyte; None where AAM did not pause it."""
    pause_requested_by: str | None = None
    """The person who paused it; it stays paused until a person resumes it."""
    credential_changed_at: datetime | None = None
    """Since when its store is known to have another credential than its source; rotate it."""
    credential_rejected_since: datetime | None = None
    """Since when its source rejects the credential that it has."""
    credential_rejected_cause: str | None = None
    """The known cause of that."""
    description: str | None = None
    labels: dict[str, str] = {}
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None = None
    health: HealthView | None = None
    """Only in lists with `include=health`."""
    recent_syncs: list[RecentSync] | None = None
    """The newest twelve, newest first; only in lists with `include=syncs`."""
    notes: list[dict[str, Any]] | None = None
    """After an onboarding: notes for the caller, such as fields left out or a shared credential."""


class Import(BaseModel):
    """The request to import one existing Airbyte connection, or all of a workspace."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"dry_run": True}]},
    )

    airbyte_connection_id: UUID | None = Field(
        default=None,
        description="An Airbyte connection. Default: all connections of the workspace.",
    )
    workspace_id: UUID | None = Field(
        default=None, description="An Airbyte workspace. Default: the one that AAM uses."
    )
    dry_run: bool | None = Field(
        default=None,
        strict=True,
        description=(
            "Report what would be imported, without importing. Default: false for one, true for "
            "all."
        ),
    )
    adopt: bool = Field(
        default=False,
        strict=True,
        description=(
            "Take connections back that this registry's AAM created, and that a registry from a "
            "backup does not know: AAM manages them wholly, and archiving deletes them in Airbyte. "
            "Others are not imported: `not_created_by_aam`."
        ),
    )

    @model_validator(mode="after")
    def _one_or_all(self) -> Self:
        if self.airbyte_connection_id is not None and self.workspace_id is not None:
            raise PydanticCustomError(
                "aam_one_or_all",
                "Input should have `airbyte_connection_id` or `workspace_id`, but not both",
            )
        return self


IMPORTED: dict[str, Any] = {
    "airbyte_connection_id": "5a1d2c3b-4e5f-4a6b-8c7d-9e0f1a2b3c4d",
    "name": "Salesforce production",
    "outcome": "imported",
    "connection_id": _ID,
}


ImportOutcome = Literal[
    "pending", "imported", "would_import", "already_managed", "not_importable", "failed"
]


class SelectedView(BaseModel):
    """Fields of a stream that Airbyte syncs; `{}` and `{pattern}` stand for unnamed fields."""

    stream: dict[str, str | None]
    fields: list[str]


class SharedTableView(BaseModel):
    """A stream whose table another connection writes, too."""

    stream: dict[str, str | None]
    message: str


class ImportedView(BaseModel):
    """The outcome for one Airbyte connection."""

    model_config = ConfigDict(json_schema_extra={"examples": [IMPORTED]})

    airbyte_connection_id: UUID
    name: str
    outcome: ImportOutcome
    """`pending`: not processed yet; `failed`: it could not be read or recorded, import it again."""
    connection_id: UUID | None = None
    code: str | None = Field(default=None, description="Why it is not imported.")
    never_selected: list[SelectedView] = Field(
        default=[],
        description=(
            "Per stream, the fields that are synced although the policy never selects them."
        ),
    )
    shared_tables: list[SharedTableView] = Field(
        default=[],
        description="The streams whose table another connection of AAM's writes, too: their rows "
        "are mixed or overwritten.",
    )


IMPORT: dict[str, Any] = {
    "operation_id": "3f8e2d1c-4b5a-4968-8776-a5b4c3d2e1f0",
    "workspace_id": "2f0c9b8a-7d6e-4c5b-8a49-3827160f5e4d",
    "dry_run": False,
    "status": "done",
    "outcomes": {"imported": 1},
    "items": [IMPORTED],
    "next": None,
}


class ImportReport(BaseModel):
    """The progress of an import, and a page of the Airbyte connections that it found."""

    model_config = ConfigDict(json_schema_extra={"examples": [IMPORT]})

    operation_id: UUID | None = None
    """The operation that imports a workspace; null if one connection was imported at once."""
    workspace_id: UUID | None = None
    """The Airbyte workspace that is imported; null if one connection was imported."""
    dry_run: bool
    status: OperationStatus
    """`failed`: it ended early; the operation has the reason, and the rest is `pending`."""
    outcomes: dict[ImportOutcome, int]
    """The number of connections by outcome."""
    items: list[ImportedView]
    """In Airbyte's order."""
    next: int | None = None
    """Pass it as `after` for the following page; null on the last page."""


ROTATION: dict[str, Any] = {
    "credential_id": "salesforce-prod",
    "connections": [
        {
            "connection_id": _ID,
            "name": "Salesforce production",
            "airbyte_source_id": "0b6f3c1e-52a7-4d55-8f7e-3f0c8a6f2f10",
            "outcome": "updated",
            "operation_id": "3f8e2d1c-4b5a-4968-8776-a5b4c3d2e1f0",
        }
    ],
}

Outcome = Literal[
    "updated",
    "unchanged",
    "running",
    "busy",
    "check_failed",
    "unchecked",
    "skipped",
    "failed",
    "unknown",
]
"""The outcome for one connection in a rotation."""


class RotatedView(BaseModel):
    """The outcome for one connection that uses the credential, or a source that uses it."""

    connection_id: UUID
    name: str
    airbyte_source_id: UUID | None
    outcome: Outcome
    code: str | None = Field(default=None, description="Why it is not updated.")
    operation_id: UUID | None = None
    cause: str | None = Field(default=None, description="The known cause of a failed check.")
    explanation: str | None = Field(default=None, description="The cause in a sentence.")
    log: str | None = Field(
        default=None, description="The Airbyte job or command whose log has the details."
    )


class RotationView(BaseModel):
    """The outcomes for all connections that use a credential."""

    model_config = ConfigDict(json_schema_extra={"examples": [ROTATION]})

    credential_id: str
    connections: list[RotatedView]


class ConnectionPage(BaseModel):
    """Connections; pass `next` as `after` to get the following page in the same order."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [CONNECTION]}]})

    items: list[ConnectionView]
    next: str | None = None


VERSION: dict[str, Any] = {
    "version_number": 2,
    "origin": "repair",
    "fingerprint": "9f2c4e1ab3d85c079f2c4e1ab3d85c07",
    "snapshot_id": _SNAPSHOT_ID,
    "streams": 2,
    "repair_id": "91aa4c0e-7d3b-4f5a-8e21-6c0b9a8d7e6f",
    "decided_by": "Ada",
    "policy_set_by": None,
    "requested_by": "ada@example.com (key ab12cd34)",
    "created_at": "2026-11-22T10:00:00.123456Z",
}


class VersionView(BaseModel):
    """One version of a connection's catalog, without the catalog."""

    model_config = ConfigDict(json_schema_extra={"examples": [VERSION]})

    version_number: int
    origin: str
    fingerprint: str
    snapshot_id: UUID | None = None
    streams: int
    repair_id: UUID | None = None
    """The repair that created it; None where a caller supplied the catalog."""
    decided_by: str | None = None
    """Who decided, as given by the caller; `policy` for an automatic decision."""
    policy_set_by: str | None = None
    """For a version decided by the policy: who set the policy entries that applied; null for the
    defaults."""
    requested_by: str | None = None
    """Whose credentials requested it; null where AAM created it automatically."""
    created_at: datetime


class VersionPage(BaseModel):
    """Versions, newest first; pass `next` as `after` to get the following page."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [VERSION], "next": None}]})

    items: list[VersionView]
    next: str | None = None


VOLUME: dict[str, Any] = {
    "stream": "Account",
    "namespace": None,
    "rows": 0,
    "bytes": 0,
    "ended_at": "2026-11-22T09:31:14Z",
    "job_id": "c2a9e4d0-3b1f-4f6e-9d8c-7b6a5f4e3d2c",
    "usual_low": 1200,
    "usual_high": 1900,
    "suspicious_since": "2026-11-22T09:31:14Z",
    "summary": "usually 1,200 to 1,900 rows; now 0",
}


class VolumeView(BaseModel):
    """A stream and what its newest sync brought; null before the first one since it is recorded."""

    stream: str
    namespace: str | None = None
    rows: int | None = None
    bytes: int | None = None
    ended_at: datetime | None = None
    job_id: UUID | None = None
    usual_low: int | None = None
    usual_high: int | None = None
    """Null with `usual_low` if fewer than eight syncs are known."""
    suspicious_since: datetime | None = None
    """The end of the first of the syncs in a row that were suspicious; null if it is not."""
    summary: str | None = None


class VolumePage(BaseModel):
    """A page of the streams of a connection, in the order of its catalog."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [VOLUME], "next": None}]})

    items: list[VolumeView]
    next: int | None = None


class SyncStarted(BaseModel):
    """A sync that Airbyte has accepted; without `job_id`, one that is still being started."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "job_id": "c2a9e4d0-3b1f-4f6e-9d8c-7b6a5f4e3d2c",
                    "airbyte_job_id": 42,
                    "status": "pending",
                    "operation_id": "3f8e2d1c-4b5a-4968-8776-a5b4c3d2e1f0",
                }
            ]
        }
    )

    operation_id: UUID
    job_id: UUID | None = None
    airbyte_job_id: int | None = None
    status: str


CATALOG: dict[str, Any] = {
    "streams": [
        {
            "stream": {
                "name": "Account",
                "jsonSchema": {
                    "type": "object",
                    "properties": {"Id": {"type": ["string", "null"]}},
                },
                "supportedSyncModes": ["full_refresh", "incremental"],
                "sourceDefinedPrimaryKey": [["Id"]],
            },
            "config": {
                "syncMode": "full_refresh",
                "destinationSyncMode": "overwrite",
                "selected": True,
            },
        }
    ]
}


class MergedCatalog(BaseModel):
    """The current catalog merged with what the source offers now.

    Post it to drift_repair_agent's /repair/apply_new_catalog, as it is or edited.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "connection_id": _ID,
                    "snapshot_id": _SNAPSHOT_ID,
                    "expected_version": 1,
                    "notes": [],
                    "sync_catalog": CATALOG,
                }
            ]
        }
    )

    connection_id: UUID
    snapshot_id: UUID
    expected_version: int
    notes: list[dict[str, Any]]
    sync_catalog: dict[str, Any]
