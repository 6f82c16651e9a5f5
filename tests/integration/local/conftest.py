"""A local Airbyte whose connector is a script, and a look into its warehouse."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from local.airbyte.settings import Settings
from tests.integration.local.airbyte_stage import Api, Scripted, scripted, serving


@pytest.fixture
def with_script(tmp_path: Path, warehouse_url: str) -> Scripted:
    """A plane whose connector is the given script."""

    def start(script: str, **settings: Any) -> AbstractAsyncContextManager[Api]:
        return serving(
            Settings(
                state_dir=tmp_path / "state",
                connectors_dir=scripted(tmp_path / "connectors", script),
                warehouse_url=SecretStr(warehouse_url),
                retry_delay=timedelta(0),
                **settings,
            )
        )

    return start


@pytest.fixture
async def db(warehouse_url: str) -> Any:
    """A look into the warehouse."""
    connection = await asyncpg.connect(warehouse_url)
    yield connection
    await connection.close()
