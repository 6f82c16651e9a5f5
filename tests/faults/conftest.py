"""One world for all cells: what a cell broke is mended, what it wrote is forgotten."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest

from local.processes import servers
from tests.faults.world import World, opened
from tests.integration.conftest import migrate


@pytest.fixture(scope="session")
async def one_world() -> AsyncIterator[World]:
    """Servers and processes of this run's own."""
    folder = servers.temporary_dir()
    try:
        async with opened(folder) as world:
            yield world
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def registry_of_faults(postgres: servers.Postgres) -> str:
    """The run's registry as the services log in, built where no test has built it before."""
    migrate(postgres.url)
    return postgres.services_url


@pytest.fixture(scope="module")
async def world_of_module(one_world: World) -> AsyncIterator[World]:
    """Its services end with the module: an idle one takes a tenth of a core from what follows."""
    yield one_world
    await one_world.end_services()


@pytest.fixture
async def world(world_of_module: World) -> World:
    """The world, with nothing in it."""
    await world_of_module.forget()
    return world_of_module
