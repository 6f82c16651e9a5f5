"""Prepares an Airbyte for AAM: waits for it, finds its workspace, creates the warehouse there.

The ids are written to the folder AAM_SETTINGS_DIR, one file per variable, from which the services
read their settings. It can be run again at any time: what exists already is adopted.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import Secret

from shared.airbyte_client import AirbyteClient
from shared.config import Optional, Seconds, Settings, load
from shared.errors import (
    AamError,
    Upstream,
    UpstreamDenied,
    UpstreamForbidden,
    UpstreamNotAirbyte,
    UpstreamNoTls,
    UpstreamNoToken,
    UpstreamRefused,
)
from shared.observability import logs
from shared.postgres_address import PostgresAddress, postgres_address

log = logs.get(__name__)

POSTGRES_IMAGE = "airbyte/destination-postgres"
_SSL_MODES = {"disable": "disable", "prefer": "prefer"}


class SetupSettings(Settings):
    """The settings of the Airbyte setup, beyond those of the orchestrator."""

    aam_settings_dir: Path
    """Folder that the services read settings from; the setup writes the ids there."""

    warehouse_db_url: Optional[Secret[str]] = None
    """The Postgres that Airbyte loads into, at an address Airbyte's job containers can reach. Not
    set: no destination is created, and each onboarding must name its own."""

    warehouse_name: str = "AAM warehouse"
    """Name of the destination in Airbyte; an existing one of exactly this name is used."""

    airbyte_start_timeout: Seconds = timedelta(minutes=20)
    """How long to wait for Airbyte to start; its first start pulls images and migrates."""

    airbyte_start_poll: Seconds = timedelta(seconds=5)
    """How often Airbyte is polled while it starts."""


class SetupFailed(Exception):
    """Airbyte cannot be prepared with these settings; the message says what to change."""


async def ready_airbyte(settings: SetupSettings, client: AirbyteClient) -> None:
    """Write the ids of the workspace and the destination where the services read them.

    Raises:
        SetupFailed: Airbyte did not start, or a required setting is missing or wrong.
        AamError: Airbyte refused, or the outcome is unknown: run it again.
    """
    folder = settings.aam_settings_dir
    default_workspace = await _wait_for_airbyte(settings, client)
    # An earlier run's value may belong to another Airbyte; only an operator's is binding.
    given_workspace = settings.airbyte_workspace_id
    if given_workspace == _left(folder, "airbyte_workspace_id"):
        given_workspace = None
    workspace_id = given_workspace or default_workspace
    if workspace_id is None:
        raise SetupFailed("Airbyte has no default workspace: set AIRBYTE_WORKSPACE_ID")
    if given_workspace is None:
        _leave(folder, "airbyte_workspace_id", workspace_id)

    given = settings.airbyte_destination_id
    if given is not None and given != _left(folder, "airbyte_destination_id"):
        log.info("airbyte_ready", workspace=str(workspace_id), destination=str(given))
        return
    destination_id = await _find_or_create_warehouse(settings, client, workspace_id)
    if destination_id is None:
        (folder / "airbyte_destination_id").unlink(missing_ok=True)
        log.warning("airbyte_has_no_warehouse", wanted="AIRBYTE_DESTINATION_ID, WAREHOUSE_DB_URL")
        return
    _leave(folder, "airbyte_destination_id", destination_id)
    log.info("airbyte_ready", workspace=str(workspace_id), destination=str(destination_id))


async def _wait_for_airbyte(settings: SetupSettings, client: AirbyteClient) -> UUID | None:
    """Poll until Airbyte answers, and return its default workspace, None where it names none.

    A wrong address or refused login fails at once.
    """
    waited, limit = 0.0, settings.airbyte_start_timeout.total_seconds()
    clock = asyncio.get_running_loop().time
    started = clock()
    while waited < limit:
        try:
            async with asyncio.timeout(limit - waited):
                workspace_id = await _default_workspace(settings, client)
                await client.health()
                return workspace_id
        except (UpstreamDenied, UpstreamNoToken, UpstreamNoTls):
            raise
        except (UpstreamNotAirbyte, UpstreamRefused) as error:
            raise SetupFailed(f"AIRBYTE_API_URL is wrong. {error.detail}") from None
        except (Upstream, TimeoutError) as error:
            waited = clock() - started
            log.info("waiting_for_airbyte", seconds=round(waited), reason=type(error).__name__)
        await asyncio.sleep(settings.airbyte_start_poll.total_seconds())
        waited = clock() - started
    raise SetupFailed(f"Airbyte did not answer at AIRBYTE_API_URL within {limit:g} s")


async def _default_workspace(settings: SetupSettings, client: AirbyteClient) -> UUID | None:
    if settings.is_airbyte_cloud:
        return None
    try:
        return (await client.instance()).default_workspace_id
    except UpstreamForbidden:  # an Airbyte with several tenants, such as Airbyte Cloud
        return None


async def _find_or_create_warehouse(
    settings: SetupSettings, client: AirbyteClient, workspace_id: UUID
) -> UUID | None:
    """The destination with our name, created if missing; None where no warehouse is configured.

    If the response to the creation is lost, it raises; the next run finds the destination by name.
    """
    destinations = await client.list_destinations(workspace_id)
    named = [found for found in destinations if found.name == settings.warehouse_name]
    if named:
        adopted = min(named, key=lambda found: found.destination_id)
        log.info("warehouse_adopted", destination=str(adopted.destination_id), of=len(named))
        return adopted.destination_id
    if settings.warehouse_db_url is None:
        return None
    try:
        address = postgres_address(settings.warehouse_db_url.get_secret_value())
    except ValueError as error:
        raise SetupFailed(f"WAREHOUSE_DB_URL {error}") from None
    definitions = await client.destination_definitions(workspace_id)
    postgres = next((one for one in definitions if one.docker_repository == POSTGRES_IMAGE), None)
    if postgres is None:
        raise SetupFailed(f"this Airbyte has no {POSTGRES_IMAGE}")
    made = await client.create_destination(
        workspace_id,
        _configuration(address),
        name=settings.warehouse_name,
        destination_definition_id=postgres.definition_id,
    )
    log.info("warehouse_created", destination=str(made.destination_id))
    return made.destination_id


def _configuration(address: PostgresAddress) -> dict[str, Any]:
    """The configuration of the Postgres destination connector.

    The connector takes certificates only by value, so verifying SSL modes become `require`.
    """
    return {
        "host": address.host,
        "port": address.port,
        "database": address.database,
        "schema": "public",
        "username": address.user,
        "password": address.password,
        "ssl": address.ssl_mode != "disable",
        "ssl_mode": {"mode": _SSL_MODES.get(address.ssl_mode, "require")},
        "tunnel_method": {"tunnel_method": "NO_TUNNEL"},
    }


def _left(folder: Path, name: str) -> UUID | None:
    """The id that an earlier run wrote; None where there is no valid one."""
    try:
        return UUID((folder / name).read_text().strip())
    except (FileNotFoundError, ValueError):
        return None


def _leave(folder: Path, name: str, value: UUID) -> None:
    """Write the file atomically."""
    fresh = folder / f".{name}.new"
    fresh.write_text(f"{value}\n")
    os.replace(fresh, folder / name)


async def main() -> None:
    """Prepare the Airbyte that the environment names.

    Raises:
        SystemExit: with a one-line reason.
    """
    settings = load(SetupSettings)
    logs.set_up("airbyte_setup", level=settings.log_level)
    async with AirbyteClient.from_settings(settings) as client:
        try:
            await ready_airbyte(settings, client)
        except (SetupFailed, AamError) as error:
            sys.exit(f"airbyte-setup: {error}")
        except OSError as error:
            sys.exit(f"airbyte-setup: AAM_SETTINGS_DIR cannot be written: {error.strerror}")


if __name__ == "__main__":
    asyncio.run(main())
