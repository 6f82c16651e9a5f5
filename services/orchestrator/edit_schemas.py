"""Request and response of PATCH /connections/{connection_id}."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from services.orchestrator.labels import MOST_LABELS, LabelName
from services.orchestrator.schedule_validation import AirbyteSchedule
from services.orchestrator.schemas import CONNECTION, ConnectionName, ConnectionView
from shared.http.strict_json import By, Name, plain
from shared.source_types import CREDENTIAL_REFERENCE

Description = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(plain)]


def _left_out(**more: Any) -> Any:
    """A member that may be left out but not be null; `model_fields_set` has it if it was sent."""
    return Field(default=None, json_schema_extra=_without_default, **more)


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


class ConnectionEdit(BaseModel):
    """The settings to change; those that are left out stay as they are."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "Salesforce CRM",
                    "schedule": {"units": 6, "time_unit": "hours"},
                    "description": "Accounts and contacts for the sales dashboards.",
                    "labels": {"team": "sales"},
                }
            ]
        },
    )

    name: ConnectionName = _left_out()
    description: Description | None = Field(default=None, description="Null removes it.")
    labels: dict[LabelName, Name | None] = _left_out(
        max_length=MOST_LABELS,
        description="Labels to set, by name; null removes a label, and others stay.",
    )
    schedule: AirbyteSchedule | None = Field(
        default=None,
        description="When Airbyte syncs on its own; null for only when AAM starts a sync.",
    )
    prefix: str | None = Field(
        default=None,
        max_length=100,
        pattern=r"^[A-Za-z0-9_.-]*$",
        description="What the names of the tables begin with; null or empty for nothing.",
    )
    namespace_definition: Literal["source", "destination", "customformat"] = _left_out(
        description="Where the tables are: in the source's namespace, the destination's default, "
        "or in `namespace_format`."
    )
    namespace_format: str = _left_out(
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9_.${}-]*$",
        description="For `customformat`; `${SOURCE_NAMESPACE}` stands for the source's namespace.",
    )
    credential_id: str = _left_out(
        pattern=CREDENTIAL_REFERENCE,
        description="The credential to use from now on. Airbyte checks it first; if the check "
        "fails, nothing is changed.",
    )
    paused: bool = _left_out(
        strict=True,
        description="True stops Airbyte's schedule until a person resumes the connection; false "
        "resumes it, even if a repair or Airbyte paused it.",
    )
    by: By | None = None
    """The person on whose behalf the caller acts. Default: the caller."""


class SettingChanged(BaseModel):
    """A setting before and after; a credential is shown by its reference."""

    before: Any = Field(alias="from")
    after: Any = Field(alias="to")


class Effect(BaseModel):
    """What a change means for syncs and tables."""

    code: str
    message: str


class EditedView(BaseModel):
    """What was changed; `changed` is empty if the connection had these settings already."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "operation_id": "3f8e2d1c-4b5a-4968-8776-a5b4c3d2e1f0",
                    "changed": {"prefix": {"from": "", "to": "crm_"}},
                    "effects": [{"code": "new_tables", "message": "The next sync writes to …"}],
                    "connection": CONNECTION,
                }
            ]
        }
    )

    operation_id: UUID | None = None
    """Null if nothing had to be changed."""
    changed: dict[str, SettingChanged]
    effects: list[Effect]
    connection: ConnectionView
