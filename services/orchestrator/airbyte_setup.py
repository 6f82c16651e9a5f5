"""Readies an Airbyte for AAM, once: waits for it, finds its workspace, makes the warehouse there.

What it finds out is left in the folder that AAM_SETTINGS_DIR names, one file per variable, where
the services' settings look. It may be run again at any time: what is there already is adopted.
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

from shared.airbyte_client import AirbyteClient, Instance
from shared.config import Optional, PostgresAddress, Seconds, Settings, load, postgres_address
from shared.errors import (
    AamError,
    Upstream,
    UpstreamDenied,
    UpstreamNotAirbyte,
    UpstreamNoTls,
    UpstreamNoToken,
    UpstreamRefused,
)
from shared.observability import logs

log = logs.get(__name__)

POSTGRES_IMAGE = "airbyte/destination-postgres"
_SSL_MODES = {"disable": "disable", "prefer": "prefer"}


class SetupSettings(Settings):
    """What the setup of Airbyte reads besides the settings of the orchestrator."""

    aam_settings_dir: Path
    """Folder that the services read settings from; the setup writes what it finds out there."""

    warehouse_db_url: Optional[Secret[str]] = None
    """The Postgres that Airbyte is to load into, as Airbyte's job containers reach it. Not set: no
    destination is created, and each onboarding must name its own."""

    warehouse_name: str = "AAM warehouse"
    """Name of the destination in Airbyte; an existing one of exactly this name is used."""

    airbyte_start_timeout: Seconds = timedelta(minutes=20)
    """How long to wait for Airbyte to start; its first start pulls images and migrates."""

    airbyte_start_poll: Seconds = timedelta(seconds=5)
    """How often Airbyte is polled meanwhile."""


class SetupFailed(Exception):
    """Airbyte cannot be readied as things are; the message says what to change."""


async def ready_airbyte(settings: SetupSettings, client: AirbyteClient) -> None:
    """Leave the workspace's and the destination's id where the services read them.

    Raises:
        SetupFailed: Airbyte did not come, or what it needs is not configured.
        AamError: Airbyte refused, or nobody knows what happened: run it again.
    """
    folder = settings.aam_settings_dir
    instance = await _wait_for_airbyte(settings, client)
    # What an earlier run left is of the Airbyte of then; only a setting of somebody's binds.
    given_workspace = settings.airbyte_workspace_id
    if given_workspace == _left(folder, "airbyte_workspace_id"):
        given_workspace = None
    workspace_id = given_workspace or instance.default_workspace_id
    if workspace_id is None:
        raise SetupFailed("Airbyte names no default workspace: set AIRBYTE_WORKSPACE_ID")
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


async def _wait_for_airbyte(settings: SetupSettings, client: AirbyteClient) -> Instance:
    """Ask until it answers; waiting helps neither a wrong address nor a refused login."""
    waited, limit = 0.0, settings.airbyte_start_timeout.total_seconds()
    clock = asyncio.get_running_loop().time
    started = clock()
    while waited < limit:
        try:
            async with asyncio.timeout(limit - waited):
                instance = await client.instance()
                await client.health()
                return instance
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


async def _find_or_create_warehouse(
    settings: SetupSettings, client: AirbyteClient, workspace_id: UUID
) -> UUID | None:
    """The destination of our name, made if it is not there; None where there is nothing to fill.

    A lost answer to the making raises; the next run finds what came of it by its name.
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
    """What the Postgres destination connector asks for.

    The connector takes certificates by value only, so a verifying mode becomes `require` here.
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
    """What an earlier run left; None where there is nothing that can be meant."""
    try:
        return UUID((folder / name).read_text().strip())
    except (FileNotFoundError, ValueError):
        return None


def _leave(folder: Path, name: str, value: UUID) -> None:
    """Write so that no reader ever sees half of it."""
    fresh = folder / f".{name}.new"
    fresh.write_text(f"{value}\n")
    os.replace(fresh, folder / name)


async def main() -> None:
    """Ready the Airbyte of the environment.

    Raises:
        SystemExit: with one line that says why it could not be done.
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
