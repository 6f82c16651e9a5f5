"""The only destination of a local Airbyte: the Postgres that its syncs write to."""

from __future__ import annotations

import time
from uuid import uuid4

import asyncpg

from local.airbyte import DESTINATION_DEFINITION_ID
from local.airbyte.api.backend import Check, Definition, Json, Outcome

DESTINATION_SPECIFICATION: Json = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Postgres, written to by the local plane",
    "type": "object",
    "required": ["url"],
    "additionalProperties": True,
    "properties": {
        "url": {
            "type": "string",
            "title": "URL",
            "description": "postgresql:// URL of the warehouse",
            "airbyte_secret": True,
            "order": 0,
        },
        "schema": {
            "type": "string",
            "title": "Default schema",
            "default": "public",
            "order": 1,
        },
    },
}


DESTINATION = Definition(
    kind="destination",
    id=str(DESTINATION_DEFINITION_ID),
    name="Postgres (local plane)",
    # Names, types and kept columns are those of this version of Airbyte's own connector.
    repository="aam/destination-postgres",
    tag="3.0.14",
    documentation="https://www.postgresql.org/docs/",
    support_level="none",
    custom=True,
    supports_refreshes=True,
)


async def check_warehouse(url: str) -> Outcome:
    """Connect to the warehouse and report whether its user may write as a sync does."""
    started = _now()
    try:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            may = await connection.fetchval(
                "SELECT has_database_privilege(current_database(), 'TEMP')"
            )
        finally:
            await connection.close(timeout=5)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        verdict = Check(False, f"Could not connect ({type(error).__name__}).")
    else:
        verdict = Check(may, None if may else "The user may not make temporary tables.")
    return Outcome(
        job_id=str(uuid4()),
        started_at=started,
        ended_at=int(time.time()),
        renewed=False,
        check=verdict,
    )


def _now() -> int:
    return int(time.time())
