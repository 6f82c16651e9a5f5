"""Checks that run before a catalog is sent to Airbyte; nothing is recorded here."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final
from uuid import UUID

import msgspec

from shared.airbyte_client import AirbyteClient
from shared.airbyte_reads import READ_FAILURES, nothing_recorded
from shared.domain import catalog as catalogs
from shared.domain.catalog import (
    MAX_STREAMS,
    Catalog,
    Exclusions,
    InvalidCatalog,
    ToleratedSettings,
)
from shared.domain.cooperative import run_cooperatively
from shared.errors import (
    Invalid,
    NotActive,
    StaleCatalog,
    SyncRunning,
    UpstreamForbidden,
    UpstreamRefused,
)
from shared.models import Connection, ConnectionStatus

_MAX_TOLD: Final = 50


async def readable(
    document: bytes | memoryview,
    *,
    familiar: ToleratedSettings | None = None,
    held: Collection[bytes] = (),
    is_checked: bool = False,
) -> tuple[Catalog, str]:
    """Parse and validate a catalog; return its selected streams and their fingerprint.

    `familiar` lists settings and modes that are accepted although AAM does not know them, `held`
    digests of streams that are accepted as they are, since Airbyte has them. With
    `is_checked` validation is skipped: `heal` produced the document, or Airbyte held it before.

    Raises:
        Invalid: the catalog is invalid; `problems` lists every problem.
    """
    try:
        catalog = await run_cooperatively(catalogs.parse.steps(document, max_streams=MAX_STREAMS))
        if not is_checked:
            checks = catalogs.validate.steps(
                catalog, familiar=familiar or ToleratedSettings(), held=held
            )
            await run_cooperatively(checks)
        wanted = catalog.selected()
        return wanted, await run_cooperatively(catalogs.fingerprint_of.steps(wanted))
    except InvalidCatalog as error:
        raise invalid(error) from None


async def expect_selectable(
    wanted: Catalog, exclusions: Exclusions, *, bodies: Iterable[bytes]
) -> None:
    """Check that a catalog selects no field that the connection's policy never selects.

    `bodies` are its streams as the source offers them now: a field may contain nested fields there
    that the catalog lacks, and a sync would carry them too.

    Raises:
        Invalid: with code `never_selected`; `problems` lists each stream and field.
    """
    try:
        offered = {one.id: one.stream for one in map(catalogs.read_stream, bodies)}
        found = await run_cooperatively(exclusions.problems(wanted, offered=offered))
    except InvalidCatalog as error:
        raise invalid(error) from None
    if found:
        raise invalid(InvalidCatalog(found))


def invalid(error: InvalidCatalog, *, code: str | None = None) -> Invalid:
    """Convert to an `Invalid` error that lists the problems by stream and field."""
    return Invalid(str(error), code=code or error.code, problems=problems(error))


def problems(error: InvalidCatalog) -> list[dict[str, Any]]:
    """The first 50 problems, by stream and field, as the API returns them."""
    return [
        {
            "stream": None if problem.stream is None else msgspec.to_builtins(problem.stream),
            "field": problem.field,
            "code": problem.code,
            "message": problem.message,
        }
        for problem in error.problems[:_MAX_TOLD]
    ]


def expect_healable(row: Connection, expected_version: int | None) -> UUID:
    """Check that a catalog may be applied now; return the id of the Airbyte connection.

    Raises:
        NotActive: the connection is archived, HEALING, PENDING, or not in Airbyte.
        StaleCatalog: its head is not `expected_version`.
    """
    if row.archived_at is not None:
        raise NotActive(f"Connection {row.id} is archived.")
    if row.status is ConnectionStatus.HEALING:
        raise NotActive(f"Connection {row.id} is already HEALING.", code="heal_in_progress")
    healable = (ConnectionStatus.ACTIVE, ConnectionStatus.FAILED)
    if row.status not in healable or row.airbyte_connection_id is None:
        raise NotActive(f"Connection {row.id} is {row.status}; it does not exist in Airbyte.")
    if expected_version is not None and expected_version != row.catalog_version:
        raise StaleCatalog(row.id, expected=expected_version, current=row.catalog_version)
    return row.airbyte_connection_id


async def expect_no_sync(
    airbyte: AirbyteClient, connection_id: UUID, airbyte_connection_id: UUID
) -> None:
    """Check that no sync of the connection is running, whether or not AAM started it.

    Raises:
        SyncRunning: a sync is running and would finish with parts of the old catalog.
        Unavailable: Airbyte cannot be reached.
    """
    try:
        statuses = await airbyte.connection_statuses([airbyte_connection_id])
    except (UpstreamRefused, UpstreamForbidden):
        return  # the operation will hit the same error and record it
    except READ_FAILURES as error:
        raise nothing_recorded(error) from None
    for status in statuses:
        if status.is_working:
            raise SyncRunning(
                f"A sync of connection {connection_id} is running: apply the catalog when it has "
                "ended.",
                airbyte_job_id=status.active_job_id,
            )
