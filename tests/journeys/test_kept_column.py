"""The warehouse's column of a renamed field is kept, with the connector and org of the demo."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from local.demo_steps import NO_SCHEDULED_OBSERVATIONS, ORDER
from local.environment import given_environment
from local.mesh_client import Mesh, MeshConnection
from local.supervisor import temporary_stack

Json = dict[str, Any]

# The connector may have to be installed first.
pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]

COLUMN = "NumberofLocations__c"


async def test_query_on_the_old_column_returns_fresh_values(tmp_path: Path) -> None:
    """After a rename, a second one, its own name adopted by mistake, and a rollback of that."""
    environment = given_environment() | NO_SCHEDULED_OBSERVATIONS
    async with temporary_stack(environment=environment, keep_logs=tmp_path / "logs") as stack:
        mesh = Mesh(stack)
        order = ORDER | {"streams": ["Account"]}
        made = await mesh.ask("orchestrator", "POST", "/connections/onboard", order, expect=201)
        one = MeshConnection(mesh, made["id"])
        await one.synced()
        rows = await mesh.count("Account")
        filled = await mesh.count("Account", f'"{COLUMN}" IS NOT NULL')
        assert filled > 0

        await renamed(one, COLUMN, "LocationCount__c", continuity="keep_column")
        await fresh(one, rows, filled)
        await renamed(one, "LocationCount__c", "Sites__c")
        await fresh(one, rows, filled)
        assert not await mesh.has_column("Account", "LocationCount__c")
        assert not await mesh.has_column("Account", "Sites__c")

        kept = await mesh.ask("drift_repair_agent", "GET", f"{one.path}/kept-columns")
        version = kept["version"]
        adopt = {"stream": {"name": "Account"}, "field": "Sites__c", "expected_version": version}
        await mesh.ask("drift_repair_agent", "POST", f"{one.path}/kept-columns/adopt", adopt)
        await touched(one, rows)
        assert await mesh.count("Account", '"Sites__c" IS NOT NULL') == filled
        assert await mesh.count("Account", f'"{COLUMN}" IS NOT NULL') == 0

        back = {"version": version, "by": "Ada", "reason": "A report needs the old column."}
        await mesh.ask("drift_repair_agent", "POST", f"{one.path}/rollback", back)
        await fresh(one, rows, filled)


async def renamed(one: MeshConnection, old: str, new: str, **choice: str) -> None:
    """Rename a field in the org, and approve the suggestion."""
    await one.mesh.change("POST", f"/Account/fields/{old}/rename", {"to": new})
    repair = await one.decide(await one.proposed(), "approve", "Renamed.", **choice)
    assert repair["state"] == "applied", repair


async def touched(one: MeshConnection, rows: int) -> datetime:
    """Change all rows in the org and sync them; the newest extraction before that."""
    before: datetime = await one.mesh.warehouse('SELECT max(_airbyte_extracted_at) FROM "Account"')
    await one.mesh.change("POST", "/Account/touch", {"count": rows})
    await one.synced()
    return before


async def fresh(one: MeshConnection, rows: int, filled: int) -> None:
    """The old column has a value in each row that had one, all extracted just now, and no twice."""
    before = await touched(one, rows)
    newer = f"_airbyte_extracted_at > '{before.isoformat()}'"
    assert await one.mesh.count("Account", f'"{COLUMN}" IS NOT NULL AND {newer}') == filled
    assert await one.mesh.count("Account") == rows
