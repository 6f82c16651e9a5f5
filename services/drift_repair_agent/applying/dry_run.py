"""Dry runs: what a request would do, without recording it and without changing Airbyte."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from fastapi import Query
from pydantic import BaseModel, ConfigDict

from services.drift_repair_agent.healing import Effect
from services.drift_repair_agent.states.schemas import StreamName
from shared.domain import drift
from shared.domain.catalog import Catalog
from shared.domain.cooperative import run_cooperatively
from shared.errors import AamError

Rehearsed = Annotated[
    bool,
    Query(
        alias="dry_run",
        description="Check the request and return what it would do. Nothing is recorded or "
        "changed. A request that would be refused gets the same error. An Idempotency-Key is "
        "ignored.",
    ),
]

Outcome = Literal["applied", "unchanged", "first_approval", "failed", "superseded"]
Afterwards = Literal["as_it_is", "resumed", "paused"]

NO_DIFFERENCE: Final[dict[str, Any]] = {
    "schema_changes": [],
    "config_changes": [],
    "effects": [],
    "problems": [],
}


class DryRun(BaseModel):
    """What a request would do now; nothing was recorded, and nothing was changed in Airbyte."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "dry_run": True,
                    "connection_id": "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f",
                    "repair_id": "91aa4c0e-7d3b-4f5a-8e21-6c0b9a8d7e6f",
                    "outcome": "applied",
                    "base_version": 2,
                    "changes": ["c1", "c2"],
                    "open_changes": 1,
                    "catalog": {
                        "schema_changes": [
                            {
                                "kind": "field_removed",
                                "stream": {"namespace": None, "name": "Account"},
                                "path": ["Total__c"],
                                "before": {"type": ["null", "number"]},
                                "after": None,
                            }
                        ],
                        "config_changes": [],
                        "effects": [],
                        "problems": [],
                    },
                    "resumed": [],
                    "refreshed": [],
                    "afterwards": "resumed",
                    "waits_for": "sync_running",
                    "waits_for_detail": "A sync of connection 7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f "
                    "is running: apply the catalog when it has ended.",
                }
            ]
        }
    )

    dry_run: Literal[True] = True
    connection_id: UUID
    repair_id: UUID | None = None
    """The repair that would be decided; null for a rollback and for a catalog of the caller."""
    outcome: Outcome
    """`applied`: the catalog would be sent to Airbyte, which may still refuse it. `unchanged`: it
    is equivalent to the newest version. `first_approval`: the approval would wait for that of
    another caller. `failed`, `superseded`: the decision would be recorded, but could not be
    applied; `problems` says why."""
    base_version: int
    """The newest version, which the catalog would follow."""
    changes: list[str] = []
    """The ids of the changes that an approval would decide."""
    open_changes: int = 0
    """How many changes would stay open."""
    catalog: dict[str, Any]
    """As in a repair: `schema_changes` and `config_changes` from the newest version to the new one,
    the `effects` of applying it, and the `problems` for which it would fail."""
    resumed: list[StreamName] = []
    """Streams that would be selected again, and resume from the sync state that Airbyte kept."""
    refreshed: list[StreamName] = []
    """Streams that would be read from their start again, by `on_global_state`."""
    afterwards: Afterwards = "as_it_is"
    """Whether the connection, if AAM has paused it, would be `resumed` in Airbyte."""
    waits_for: str | None = None
    """The code of what the decision would wait for, such as `sync_running`; null if it would be
    applied at once."""
    waits_for_detail: str | None = None


async def difference(
    before: Catalog, after: Catalog, effects: Iterable[Effect] = ()
) -> dict[str, Any]:
    """The schema and configuration differences between two catalogs, and the effects, for JSON."""
    schema = await run_cooperatively(drift.diff.steps(before, after.selected()))
    config = await run_cooperatively(drift.diff_config.steps(before, after))
    return NO_DIFFERENCE | {
        "schema_changes": msgspec.to_builtins(schema),
        "config_changes": msgspec.to_builtins(config),
        "effects": msgspec.to_builtins(list(effects)),
    }


def as_problem(error: AamError) -> dict[str, Any]:
    """An error as a problem of a catalog."""
    return {"stream": None, "field": "", "code": error.code, "message": error.detail}
