"""Credential rotation with a real connector and an org that renews refresh tokens at each login."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from local.demo_steps import NO_SCHEDULED_OBSERVATIONS, ORDER
from local.environment import given_environment
from local.mesh_client import Mesh, MeshConnection
from local.sample_org.settings import Settings as SampleOrg
from local.supervisor import temporary_stack

REFERENCE = "file:salesforce-prod"

# The connector may have to be installed first.
pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]


async def test_renewed_token_survives_every_rotation(tmp_path: Path) -> None:
    """The stored token is outdated after the first login; other changed fields are applied."""
    org, folder = SampleOrg(), tmp_path / "credentials"
    write(
        folder,
        client_id=org.client_id,
        client_secret=org.client_secret.get_secret_value(),
        refresh_token=org.refresh_token.get_secret_value(),
    )
    environment = given_environment() | NO_SCHEDULED_OBSERVATIONS | {"CREDENTIALS_DIR": str(folder)}
    async with temporary_stack(environment=environment, keep_logs=tmp_path / "logs") as stack:
        mesh = Mesh(stack)
        await mesh.ask("sample_org", "PATCH", "/org/settings", {"rotate_refresh_token": True})
        order = {**ORDER, "credential_id": REFERENCE}
        connection = await mesh.ask(
            "orchestrator", "POST", "/connections/onboard", order, expect=201
        )
        one = MeshConnection(mesh, connection["id"])
        await one.synced()
        assert await rotated(mesh) == "unchanged"

        await asyncio.to_thread(write, folder, client_secret="AAMCANARY-mistyped")
        assert await rotated(mesh, expect=422) is None
        await one.synced()

        secret = org.client_secret.get_secret_value()
        await asyncio.to_thread(write, folder, client_secret=secret, start_date="2020-01-01")
        assert await rotated(mesh) == "updated"
        held = await mesh.in_airbyte("sources/get", sourceId=connection["airbyte_source_id"])
        assert held["connectionConfiguration"]["start_date"] == "2020-01-01"
        await one.synced()
        assert await rotated(mesh) == "unchanged"


def write(folder: Path, **fields: str) -> None:
    """Write fields of the credential to the store."""
    (folder / "salesforce-prod").mkdir(parents=True, exist_ok=True)
    for name, value in fields.items():
        (folder / "salesforce-prod" / name).write_text(value)


async def rotated(mesh: Mesh, *, expect: int = 200) -> Any:
    """Rotate the credential; return its connection's outcome, None for a problem response."""
    path = f"/credentials/{REFERENCE}/rotate"
    answer = await mesh.ask("orchestrator", "POST", path, expect=expect)
    return answer["connections"][0]["outcome"] if expect == 200 and answer else None
