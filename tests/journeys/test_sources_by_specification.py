"""Real connectors are found, checked, previewed and onboarded by their own specifications."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.airbyte import WORKSPACE_ID
from local.airbyte.connector import PINNED
from local.demo_steps import NO_SCHEDULED_OBSERVATIONS
from local.environment import given_environment
from local.mesh_client import Mesh
from local.supervisor import temporary_stack

# The connectors may have to be installed first.
pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]
RECORDS = PINNED["source-hardcoded-records"]


async def test_source_is_onboarded_by_its_specification(tmp_path: Path) -> None:
    """From the list of types to a connection; check and preview leave nothing behind."""
    environment = given_environment() | NO_SCHEDULED_OBSERVATIONS
    async with temporary_stack(environment=environment, keep_logs=tmp_path / "logs") as stack:
        mesh = Mesh(stack)
        (found,) = (await mesh.ask("orchestrator", "GET", "/source-types?search=records"))["items"]
        assert (found["id"], found["version"]) == (str(RECORDS.definition_id), RECORDS.version)
        path = "/source-types/Salesforce/specification"
        salesforce = await mesh.ask("orchestrator", "GET", path)
        assert salesforce["secret_paths"] == ["$.client_secret", "$.refresh_token"]

        order = {"source_type": "Salesforce", "credential_id": "salesforce-prod"}
        checked = await mesh.ask("orchestrator", "POST", "/sources/check", order)
        assert checked == {"status": "succeeded", "notes": []}
        secret = order | {"configuration": {"client_secret": "never"}}
        refused = await mesh.ask("orchestrator", "POST", "/sources/check", secret, expect=422)
        assert refused["code"] == "secret_in_order"

        records = {"source_type": found["id"], "configuration": {"count": 5}}
        shown = await mesh.ask("orchestrator", "POST", "/sources/preview", records)
        assert {"products", "customers"} <= {one["name"] for one in shown["items"]}
        listed = await mesh.in_airbyte("sources/list", workspaceId=str(WORKSPACE_ID))
        assert listed["sources"] == []
        typo = records | {"configuration": {"cuont": 5}}
        refused = await mesh.ask("orchestrator", "POST", "/sources/preview", typo, expect=422)
        assert "did you mean 'count'?" in refused["detail"]

        new = records | {"connection_name": "Records"}
        connection = await mesh.ask("orchestrator", "POST", "/connections/onboard", new, expect=201)
        held = await mesh.in_airbyte("sources/get", sourceId=connection["airbyte_source_id"])
        assert held["connectionConfiguration"] == {"count": 5}
