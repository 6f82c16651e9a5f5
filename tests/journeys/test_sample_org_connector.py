"""Airbyte's unmodified Salesforce connector checks, discovers and reads the sample org.

The connector is the one that the local Airbyte installs, or AAM_CONNECTOR_SALESFORCE.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.sample_org.server import Running, running
from local.sample_org.settings import Settings

pytestmark = pytest.mark.process

Message = dict[str, Any]
INSTALLED = Path(".aam/connectors/source-salesforce-2.10.3/bin/source-salesforce")
RUN_SECONDS = 60


class Connector:
    """The connector's program with a configuration, in a separate directory."""

    def __init__(self, program: Path, org: Running, directory: Path) -> None:
        self._program = program
        self._org = org
        self._directory = directory
        settings = Settings()
        self.config: Message = {
            "client_id": settings.client_id,
            "client_secret": settings.client_secret.get_secret_value(),
            "refresh_token": settings.refresh_token.get_secret_value(),
            "stream_slice_step": "P1000D",
            "lookback_window": "PT0S",
        }

    async def check(self) -> str:
        """Run `check` and return its status."""
        (status,) = of_type(await self._run("check"), "CONNECTION_STATUS")
        return str(status["connectionStatus"]["status"])

    async def discover(self) -> dict[str, Message]:
        """Run `discover` and return the streams by name."""
        (message,) = of_type(await self._run("discover"), "CATALOG")
        return {stream["name"]: stream for stream in message["catalog"]["streams"]}

    async def read(
        self, streams: list[Message], *, mode: str, state: list[Message] | None = None
    ) -> list[Message]:
        """Run `read` and return its messages."""
        catalog = {
            "streams": [
                {
                    "stream": stream,
                    "sync_mode": mode,
                    "destination_sync_mode": "append",
                    "cursor_field": stream["default_cursor_field"],
                    "primary_key": stream["source_defined_primary_key"],
                }
                for stream in streams
            ]
        }
        return await self._run("read", catalog=catalog, state=state or [])

    async def _run(self, verb: str, **files: Any) -> list[Message]:
        options = []
        for name, content in {"config": self.config, **files}.items():
            path = self._directory / f"{name}.json"
            path.write_text(json.dumps(content))
            options += [f"--{name}", str(path)]
        process = await asyncio.create_subprocess_exec(
            str(self._program),
            verb,
            *options,
            cwd=self._directory,
            env={
                "PATH": os.defpath,
                "HOME": str(self._directory),
                **self._org.connector_environment,
            },
            stdout=asyncio.subprocess.PIPE,
            limit=64 * 1024 * 1024,
        )
        try:
            async with asyncio.timeout(RUN_SECONDS):
                out, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        messages = [json.loads(line) for line in out.splitlines()]
        errors = [m for m in of_type(messages, "TRACE") if m["trace"]["type"] == "ERROR"]
        assert verb == "check" or not errors, errors
        for message in of_type(messages, "CONTROL"):
            self.config = message["control"]["connectorConfig"]["config"]
        return messages


@pytest.fixture(scope="module")
def program() -> Path:
    """The path of the connector's program."""
    path = Path(os.environ.get("AAM_CONNECTOR_SALESFORCE", INSTALLED)).absolute()
    assert path.exists(), f"The Salesforce connector is not installed at {path}."
    return path


@pytest.fixture(scope="module")
async def org(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One sample org for the whole module."""
    state_dir = tmp_path_factory.mktemp("sample-org")
    ports = {"port": 0, "proxy_port": 0, "state_dir": state_dir}
    async with running(Settings.model_validate(ports)) as started:
        yield started


@pytest.fixture
def connector(program: Path, org: Running, tmp_path: Path) -> Connector:
    """The connector with valid credentials, and the org in its initial state."""
    org.live.reset()
    return Connector(program, org, tmp_path)


@pytest.fixture
async def control(org: Running) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the org's control API."""
    async with httpx.AsyncClient(
        base_url=f"{org.url}/org", trust_env=False, headers=org.control
    ) as client:
        yield client


def of_type(messages: list[Message], kind: str) -> list[Message]:
    """Return the messages of one type."""
    return [message for message in messages if message["type"] == kind]


def records(messages: list[Message]) -> list[tuple[str, Message]]:
    """Return each record as stream name and data."""
    return [(m["record"]["stream"], m["record"]["data"]) for m in of_type(messages, "RECORD")]


def last_states(messages: list[Message]) -> list[Message]:
    """Return the last state of each stream, in the format that the platform passes back."""
    states = {
        m["state"]["stream"]["stream_descriptor"]["name"]: m["state"]
        for m in of_type(messages, "STATE")
    }
    return list(states.values())


@pytest.mark.deep
async def test_changed_org_is_read_incrementally(
    connector: Connector, control: httpx.AsyncClient, org: Running
) -> None:
    """Account by REST, Opportunity by Bulk API: pagination, cursors and types work."""
    org.live.behave(org.live.behaviour.model_copy(update={"page_size": 90, "bulk_page_size": 150}))
    assert await connector.check() == "SUCCEEDED"
    streams = await connector.discover()
    assert len(streams) == 13  # including the connector's own stream, Describe
    assert streams["Account"]["default_cursor_field"] == ["SystemModstamp"]
    chosen = [streams["Account"], streams["Opportunity"]]

    full = await connector.read(chosen, mode="incremental")
    assert Counter(name for name, _ in records(full)) == {"Account": 200, "Opportunity": 400}
    ids = {data["Id"] for _, data in records(full)}
    assert len(ids) == 600
    assert org.live.calls["query"] == 3
    assert org.live.calls["results"] == 3

    added = {"name": "Region__c", "values": ["EMEA", None]}
    assert (await control.post("/objects/Account/fields", json=added)).status_code == 201
    touched = await control.post("/objects/Opportunity/touch", json={"count": 7})
    assert touched.status_code == 200
    account = (await connector.discover())["Account"]
    assert account["json_schema"]["properties"]["Region__c"] == {"type": ["string", "null"]}

    after = await connector.read(
        [account, streams["Opportunity"]], mode="incremental", state=last_states(full)
    )

    assert Counter(name for name, _ in records(after)) == {"Account": 100, "Opportunity": 7}
    regions = {data["Region__c"] for name, data in records(after) if name == "Account"}
    assert regions == {"EMEA"}


@pytest.mark.deep
async def test_rotated_refresh_token_is_printed_and_valid(
    connector: Connector, control: httpx.AsyncClient
) -> None:
    """The connector prints a configuration with the new token; the old one is invalid."""
    await control.patch("/settings", json={"rotate_refresh_token": True})
    stale = dict(connector.config)

    assert await connector.check() == "SUCCEEDED"
    assert connector.config["refresh_token"] != stale["refresh_token"]
    assert await connector.check() == "SUCCEEDED"

    connector.config = stale
    assert await connector.check() == "FAILED"
