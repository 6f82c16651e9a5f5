"""Sources of any type, by what their connector's specification says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests import leaks
from tests.fakes.airbyte_server import WIDGETS, AirbyteServer
from tests.integration.conftest import CREDENTIALS, Mesh, Meshes

Json = dict[str, Any]

PASSWORD = leaks.canary("the password of the widgets")
HEADER = leaks.canary("a header of the widgets")
SECRET = leaks.canary("a secret that an order has")
ORDER: Json = {
    "source_type": WIDGETS,
    "connection_name": "Widgets",
    "credential_id": "widgets",
    "streams": ["Account"],
    "configuration": {"host": "widgets.example.org", "headers": [{"name": "X-Team"}]},
}
STORED = {
    "CREDENTIAL_WIDGETS__CREDENTIALS__AUTH_TYPE": "password",
    "CREDENTIAL_WIDGETS__CREDENTIALS__USERNAME": "aam",
    "CREDENTIAL_WIDGETS__CREDENTIALS__PASSWORD": PASSWORD,
    "CREDENTIAL_WIDGETS__HEADERS__0__VALUE": HEADER,
    "CREDENTIAL_WIDGETS__PORT": "9443",
}
WHOLE: Json = {
    "host": "widgets.example.org",
    "port": 9443,
    "credentials": {"auth_type": "password", "username": "aam", "password": PASSWORD},
    "headers": [{"name": "X-Team", "value": HEADER}],
    "tunnel": {"method": "none"},
}


@pytest.fixture
def store() -> dict[str, str]:
    """What the auth_broker's environment has; tests change it."""
    return {**CREDENTIALS, **STORED}


@pytest.fixture
async def mesh(
    store: dict[str, str], airbyte: AirbyteServer, meshes: Meshes
) -> AsyncIterator[Mesh]:
    """The services, with the credential of the widgets."""
    async with meshes.start(airbyte, repairs=False, credentials=store) as mesh:
        yield mesh


async def order(mesh: Mesh, **changes: Any) -> Any:
    """The answer to an order for the widgets."""
    return await mesh.orchestrator.post("/connections/onboard", json={**ORDER, **changes})


@pytest.mark.parametrize("named", [WIDGETS, "Widgets"])
async def test_third_type_is_onboarded_by_its_specification(mesh: Mesh, named: str) -> None:
    """The order, the credential and what the specification fills in, as one configuration."""
    answer = await order(mesh, source_type=named)

    assert answer.status_code == 201, answer.text
    assert answer.json()["source_type"] == "Widgets"
    (source,) = mesh.airbyte.sources.values()
    assert source["sourceDefinitionId"] == WIDGETS
    assert source["connectionConfiguration"] == WHOLE
