"""The mesh on as few connections as the smallest session pooler leaves it."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError
from sqlalchemy import text

from shared.config import Settings
from shared.database import Database
from shared.postgres_address import postgres_address
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.conftest import Meshes
from tests.integration.drifting import ACCOUNT, drift, offering, repairs_until


async def test_pool_is_bounded_by_its_setting(registry_url: str) -> None:
    """When all connections are in use, callers wait."""
    db = Database.at(postgres_address(registry_url), application="small", connections=2)
    most = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'aam-small'")

    async def ask() -> int:
        async with db.transaction() as session:
            await session.execute(text("SELECT pg_sleep(0.01)"))
            return int(await session.scalar(most) or 0)

    counts = await asyncio.gather(*(ask() for _ in range(10)))
    await db.close()
    assert set(counts) <= {1, 2}


async def test_connections_stay_open(registry_url: str) -> None:
    """Bursts use the same connections again: opening one costs Postgres more than a transaction."""
    db = Database.at(postgres_address(registry_url), application="bursts", connections=4)

    async def ask() -> int:
        async with db.transaction() as session:
            await session.execute(text("SELECT pg_sleep(0.05)"))
            return int(await session.scalar(text("SELECT pg_backend_pid()")) or 0)

    used = [await asyncio.gather(*(ask() for _ in range(4))) for _ in range(3)]
    await db.close()
    assert len({pid for burst in used for pid in burst}) == 4


async def test_two_connections_per_process_are_enough(
    airbyte: AirbyteServer, meshes: Meshes
) -> None:
    """Onboarded, observed and repaired: nothing holds one connection while waiting for another."""
    async with meshes.start(airbyte, registry_connections="2") as mesh:
        connection = await mesh.onboard()
        await drift(mesh, connection, offering({**ACCOUNT, "Region__c": "string"}))
        await repairs_until(mesh, connection, ["applied"])


@pytest.mark.parametrize("number", ["1", "0", "201", "many"])
def test_too_few_connections_are_refused(number: str) -> None:
    """The relay holds one for as long as it publishes."""
    with pytest.raises(ValidationError, match="registry_connections"):
        Settings.model_validate(
            {"supabase_db_url": "postgresql://u:p@h/d", "registry_connections": number}
        )
