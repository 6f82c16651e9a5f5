"""The setup waits for Airbyte, makes the warehouse once, and leaves the ids for the services."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from shared.config import Settings, load
from tests.fakes.airbyte_server import POSTGRES, WORKSPACE_ID, AirbyteServer, Auth

pytestmark = pytest.mark.process

PASSWORD = "AAMCANARY-warehouse-p@ss"
WAREHOUSE = f"postgresql://loader:{PASSWORD}@postgres:5432/warehouse?sslmode=disable"


@pytest.fixture
async def airbyte(request: pytest.FixtureRequest) -> AirbyteServer:
    """An Airbyte that the test starts when it wants to."""
    param: tuple[str, Auth] = getattr(request, "param", ("2.0.0", "token"))
    version, auth = param
    return AirbyteServer(version=version, auth=auth)


both_releases = pytest.mark.parametrize(
    "airbyte", [("0.63.19", "basic"), ("2.0.0", "token")], ids=["0.63.19", "2.0.0"], indirect=True
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The volume that the services share."""
    (tmp_path / "settings").mkdir()
    return tmp_path / "settings"


async def set_up(
    airbyte: AirbyteServer, folder: Path, **environment: str
) -> tuple[int | None, str]:
    """Run the setup as compose does; its exit status and all that it wrote."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.orchestrator.airbyte_setup",
        env=_environment(airbyte, folder) | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    return process.returncode, output.decode()


def _environment(airbyte: AirbyteServer, folder: Path) -> dict[str, str]:
    return {
        **airbyte.environment,
        "SUPABASE_DB_URL": "postgresql://aam:x@127.0.0.1:1/aam",
        "AAM_SETTINGS_DIR": str(folder),
        "WAREHOUSE_DB_URL": WAREHOUSE,
        "AIRBYTE_START_POLL": "0.05",
        "AIRBYTE_START_TIMEOUT": "20",
    }


@pytest.mark.deep(after=1)
@both_releases
async def test_warehouse_destination_is_created_once(airbyte: AirbyteServer, folder: Path) -> None:
    """The second run adopts it, and no output has the password."""
    async with airbyte:
        first, output = await set_up(airbyte, folder)
        second, second_output = await set_up(airbyte, folder)

    assert (first, second) == (0, 0), output + second_output
    [destination] = airbyte.destinations.values()
    assert destination["name"] == "AAM warehouse"
    assert destination["destinationDefinitionId"] == POSTGRES
    assert destination["connectionConfiguration"] == {
        "host": "postgres",
        "port": 5432,
        "database": "warehouse",
        "schema": "public",
        "username": "loader",
        "password": PASSWORD,
        "ssl": False,
        "ssl_mode": {"mode": "disable"},
        "tunnel_method": {"tunnel_method": "NO_TUNNEL"},
    }
    assert PASSWORD not in output + second_output


async def test_services_read_the_stored_ids(
    airbyte: AirbyteServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids are files that every service's settings take as variables."""
    async with airbyte:
        await set_up(airbyte, folder)
        [destination_id] = airbyte.destinations
    monkeypatch.setenv("AAM_SETTINGS_DIR", str(folder))
    monkeypatch.setenv("SUPABASE_DB_URL", "postgresql://aam:x@127.0.0.1:1/aam")

    settings = load(Settings)

    assert settings.airbyte_destination_id == UUID(destination_id)
    assert settings.airbyte_workspace_id == UUID(WORKSPACE_ID)


async def test_configured_destination_is_kept(airbyte: AirbyteServer, folder: Path) -> None:
    """Where AIRBYTE_DESTINATION_ID is set, nothing is made and it is not overwritten."""
    async with airbyte:
        theirs = airbyte.add_destination("theirs")["destinationId"]
        status, output = await set_up(airbyte, folder, AIRBYTE_DESTINATION_ID=theirs)

    assert status == 0, output
    assert list(airbyte.destinations) == [theirs]
    assert not (folder / "airbyte_destination_id").exists()


async def test_setup_without_a_warehouse(airbyte: AirbyteServer, folder: Path) -> None:
    """An Airbyte elsewhere need not have a Postgres; the ids of an earlier run are deleted."""
    async with airbyte:
        await set_up(airbyte, folder)
        airbyte.destinations.clear()
        status, output = await set_up(airbyte, folder, WAREHOUSE_DB_URL="")

    assert status == 0, output
    assert "airbyte_has_no_warehouse" in output
    assert airbyte.destinations == {}
    assert os.listdir(folder) == ["airbyte_workspace_id"]


async def test_deleted_warehouse_destination_is_created_again(
    airbyte: AirbyteServer, folder: Path
) -> None:
    async with airbyte:
        await set_up(airbyte, folder)
        airbyte.destinations.clear()
        status, output = await set_up(airbyte, folder)

    assert status == 0, output
    assert (folder / "airbyte_destination_id").read_text().split() == list(airbyte.destinations)


async def test_warehouse_is_found_among_many_destinations(
    airbyte: AirbyteServer, folder: Path
) -> None:
    """On any page, and by its exact name."""
    async with airbyte:
        for number in range(45):
            airbyte.add_destination(f"AAM warehouse {number}")
        ours = airbyte.add_destination("AAM warehouse")["destinationId"]
        for number in range(45):
            airbyte.add_destination(f"aam warehouse {number}")
        status, output = await set_up(airbyte, folder)

    assert status == 0, output
    assert (folder / "airbyte_destination_id").read_text().strip() == ours


async def test_setup_waits_for_airbyte(airbyte: AirbyteServer, folder: Path) -> None:
    """Refused connections and a proxy's 502 mean that it is still starting."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        airbyte.port = reserved.getsockname()[1]
    running = asyncio.create_task(set_up(airbyte, folder))
    await asyncio.sleep(1.5)
    await airbyte.start(airbyte.port)
    # More than one call repeats by itself.
    airbyte.fault("instance_configuration", "html_502", times=7)
    status, output = await running
    await airbyte.stop()

    assert status == 0, output
    assert "waiting_for_airbyte" in output
    assert len(airbyte.called("instance_configuration")) == 8


async def test_setup_times_out_in_one_line(folder: Path) -> None:
    absent = AirbyteServer()
    absent.port = 1
    status, output = await set_up(absent, folder, AIRBYTE_START_TIMEOUT="0.5")

    assert status == 1
    assert output.splitlines()[-1] == (
        "airbyte-setup: Airbyte did not answer at AIRBYTE_API_URL within 0.5 s"
    )


async def test_refusal_is_one_line(airbyte: AirbyteServer, folder: Path) -> None:
    """Airbyte's message, which quotes the configuration, is not repeated."""
    async with airbyte:
        text = f"does not fulfill the specification: {PASSWORD}"
        refusal = {"message": text, "errorId": str(uuid4())}
        airbyte.answer("destinations/create", refusal, status=422, effect=False)
        status, output = await set_up(airbyte, folder)

    assert status == 1
    assert output.splitlines()[-1].startswith("airbyte-setup: ")
    assert "Traceback" not in output
    assert PASSWORD not in output


@pytest.mark.deep(after=1)
@both_releases
async def test_wrong_credentials_are_not_retried(airbyte: AirbyteServer, folder: Path) -> None:
    async with airbyte:
        environment = {
            name: f"{value}-wrong"
            for name, value in airbyte.environment.items()
            if name in ("AIRBYTE_PASSWORD", "AIRBYTE_CLIENT_SECRET")
        }
        status, output = await set_up(airbyte, folder, **environment)

    assert status == 1
    assert output.splitlines()[-1].startswith("airbyte-setup: ")
    assert "-wrong" not in output


async def test_lost_answer_is_resolved_by_the_next_run(
    airbyte: AirbyteServer, folder: Path
) -> None:
    """The destination that was created is adopted."""
    async with airbyte:
        airbyte.fault("destinations/create", "reset", after_effect=True)
        first, _ = await set_up(airbyte, folder)
        second, output = await set_up(airbyte, folder)

    assert (first, second) == (1, 0), output
    assert len(airbyte.destinations) == 1


async def test_stored_workspace_of_another_airbyte_is_replaced(
    airbyte: AirbyteServer, folder: Path
) -> None:
    """A configured workspace is kept."""
    (folder / "airbyte_workspace_id").write_text("11111111-0000-4000-8000-000000000000")
    async with airbyte:
        status, output = await set_up(airbyte, folder)
        assert status == 0, output
        assert (folder / "airbyte_workspace_id").read_text().strip() == WORKSPACE_ID

        (folder / "airbyte_workspace_id").unlink()
        status, output = await set_up(airbyte, folder, AIRBYTE_WORKSPACE_ID=WORKSPACE_ID)
    assert status == 0, output
    assert not (folder / "airbyte_workspace_id").exists()


async def test_airbyte_cloud_needs_the_workspace_alone(folder: Path) -> None:
    """It does not describe its instance; a workspace that is not set is named."""
    async with AirbyteServer(version="cloud", auth="token") as airbyte:
        code, output = await set_up(airbyte, folder)
        assert code == 0, output
        assert [one["workspaceId"] for one in airbyte.destinations.values()] == [WORKSPACE_ID]

        code, output = await set_up(airbyte, folder, AIRBYTE_WORKSPACE_ID="")

    assert code == 1
    assert "airbyte-setup: Airbyte has no default workspace: set AIRBYTE_WORKSPACE_ID" in output
