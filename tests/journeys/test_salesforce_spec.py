"""The auth_broker's configurations match the installed Salesforce connector's specification.

The connector is the one that the local Airbyte installs, or AAM_CONNECTOR_SALESFORCE.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from local.airbyte.connector import PINNED
from local.airbyte.connector_store import Store
from services.auth_broker import salesforce
from services.auth_broker.stores import EnvironmentStore
from shared.credential_documents import Credential
from shared.domain import specification as specifications

pytestmark = pytest.mark.process

CONNECTOR = PINNED["source-salesforce"]


@pytest.fixture(scope="module")
def specification() -> dict[str, Any]:
    """The connection specification that the connector prints."""
    installed = Store(Path(".aam/connectors")).executable(CONNECTOR)
    program = Path(os.environ.get("AAM_CONNECTOR_SALESFORCE", installed)).absolute()
    assert program.exists(), f"The Salesforce connector is not installed at {program}."
    printed = subprocess.run(
        [str(program), "spec"],
        env={"PATH": os.defpath},
        capture_output=True,
        check=True,
        timeout=60,
    )
    messages = [json.loads(line) for line in printed.stdout.splitlines()]
    (spec,) = [message["spec"] for message in messages if message["type"] == "SPEC"]
    found: dict[str, Any] = spec["connectionSpecification"]
    return found


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"IS_SANDBOX": "true"},
        {"START_DATE": "2024-01-31"},
        {"START_DATE": "2024-01-31T00:00:00Z"},
    ],
)
async def test_configuration_matches_the_connector_specification(
    specification: dict[str, Any], more: dict[str, str]
) -> None:
    """No property is missing or unknown, and all values match the schema."""
    required = {"CLIENT_ID": "i", "CLIENT_SECRET": "s", "REFRESH_TOKEN": "t"}
    environment = {f"CREDENTIAL_ORG__{name}": value for name, value in (required | more).items()}

    store = EnvironmentStore(environment)
    credential = Credential(dict(await store.document("org")), store.naming("org"))
    config = salesforce.configuration(credential)

    jsonschema.Draft7Validator(specification).validate(config)
    assert config.keys() <= specification["properties"].keys()
    assert set(specification["required"]) <= config.keys()
    theirs = specifications.parse(json.dumps(specification).encode())
    made = specifications.complete(theirs, {}, credential.document)
    assert made.faults == ()
    assert made.configuration == {
        name: value for name, value in config.items() if name != "is_sandbox" or value
    }


def test_start_date_pattern_equals_the_connectors(specification: dict[str, Any]) -> None:
    """AAM accepts exactly the start dates that the connector accepts."""
    theirs = specification["properties"]["start_date"]["pattern"]
    ours = salesforce.SPECIFICATION.schema["properties"]["start_date"]["pattern"]
    for start_date in ("2024-01-31", "2024-01-31T00:00:00Z", "2024-1-1", "2024-01-31T00:00Z", "x"):
        assert bool(re.search(ours, start_date)) is bool(re.search(theirs, start_date)), start_date
