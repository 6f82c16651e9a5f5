"""One world for all cells: each cell's damage is repaired and its data deleted."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest

from local.processes import servers
from tests.faults.world import World, opened
from tests.integration.conftest import migrate


@pytest.fixture(scope="session")
async def one_world() -> AsyncIterator[World]:
    """Servers and processes for this run."""
    folder = servers.temporary_dir()
    try:
        async with opened(folder) as world:
            yield world
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def registry_of_faults(postgres: servers.Postgres) -> str:
    """The registry's URL with the services' login; runs the migrations if necessary."""
    migrate(postgres.url)
    return postgres.services_url


@pytest.fixture(scope="module")
async def world_of_module(one_world: World) -> AsyncIterator[World]:
    """The world; services end with the module, since an idle one uses a tenth of a core."""
    yield one_world
    await one_world.end_services()


@pytest.fixture
async def world(world_of_module: World) -> World:
    """The world without data."""
    await world_of_module.forget()
    return world_of_module
