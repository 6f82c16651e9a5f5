"""The local Airbyte outlives misbehaving connectors, and connectors do not outlive it."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from local.airbyte import WORKSPACE_ID, connector_process
from local.airbyte.settings import Limits
from local.processes.servers import free_port
from local.request_guard import token_of
from tests.integration.local.airbyte_stage import (
    CONNECTORS,
    INTEGER,
    RECORDS,
    ROOT,
    TEXT,
    Api,
    Scripted,
    stream,
)
from tests.pools import Sql
from tests.waiting import until

pytestmark = pytest.mark.process

UPSERT = ("incremental", "append_dedup")
CATALOG = {"streams": [{"name": "s", "json_schema": {}, "supported_sync_modes": ["full_refresh"]}]}


async def test_long_line_is_one_message(with_script: Scripted) -> None:
    """24 MB in one line, where asyncio's own limit is 64 KiB."""
    script = f"""
    catalog = {CATALOG!r}
    catalog["streams"][0]["json_schema"] = {{"description": "x" * 24_000_000}}
    say(type="CATALOG", catalog=catalog)
    """
    async with with_script(script) as api:
        source = await api.source()
        answer = await api.ask("sources/discover_schema", sourceId=source["sourceId"])
        assert len(answer["catalog"]["streams"][0]["stream"]["jsonSchema"]["description"]) == 24e6


async def test_read_only_environment_still_has_a_specification(with_script: Scripted) -> None:
    """As in a container: the connector is asked each time, since nothing can be cached."""
    async with with_script("") as api:
        store = api.plane.connectors.store
        (store.home(RECORDS) / f"spec.{os.getpid()}").mkdir()
        for _ in range(2):
            found = await api.ask(
                "source_definition_specifications/get",
                sourceDefinitionId=str(RECORDS.definition_id),
                workspaceId=str(WORKSPACE_ID),
            )
            assert "token" in found["connectionSpecification"]["properties"]
        assert store.stored_spec(RECORDS) is None


async def test_output_that_is_no_message_is_skipped(with_script: Scripted) -> None:
    """Prints, blank lines and JSON that is no message do not matter; nor does noise on stderr."""
    script = f"""
    print("hello\\n\\n[1]\\n{{}}")
    sys.stderr.write("noise\\n" * 100_000)
    say(type="CATALOG", catalog={CATALOG!r})
    """
    async with with_script(script) as api:
        source = await api.source()
        answer = await api.ask("sources/discover_schema", sourceId=source["sourceId"])
        assert answer["jobInfo"]["succeeded"] is True


async def test_messages_take_precedence_over_the_exit_code(with_script: Scripted) -> None:
    """FAILED with exit 0 is a failed check; an error without a verdict is a failed job."""
    script = """
    if config["mode"] == "verdict":
        say(type="TRACE", trace={"type": "ERROR", "error": {"message": "beside the point"}})
        say(type="CONNECTION_STATUS", connectionStatus={"status": "FAILED", "message": "no entry"})
    elif config["mode"] == "silent":
        sys.exit(3)
    else:
        fail("cannot reach it with " + config["token"], failure_type="transient_error")
    """
    async with with_script(script) as api:

        async def check(mode: str) -> Any:
            source = await api.source({"mode": mode, "token": "canary-4711"})
            return await api.ask("sources/check_connection", sourceId=source["sourceId"])

        answer = await check("verdict")
        assert (answer["status"], answer["message"]) == ("failed", "no entry")
        assert answer["jobInfo"]["succeeded"] is True
        answer = await check("silent")
        assert "status" not in answer
        assert "exit code 3" in answer["jobInfo"]["failureReason"]["externalMessage"]
        answer = await check("error")
        reason = answer["jobInfo"]["failureReason"]
        assert (reason["failureType"], reason["retryable"]) == ("transient_error", True)
        assert reason["externalMessage"] == "cannot reach it with **********"


@pytest.mark.parametrize("limits, words", [((0.5, 9), "wrote nothing"), ((9, 0.7), "not done")])
async def test_silent_and_slow_connectors_time_out(
    with_script: Scripted, limits: tuple[float, float], words: str
) -> None:
    """Their processes are gone when the answer comes."""
    script = """
    open(config["pid"], "w").write(str(os.getpid()))
    time.sleep(60)
    """
    idle, total = (timedelta(seconds=each) for each in limits)
    async with with_script(script, discover=Limits(idle=idle, total=total)) as api:
        pid_file = api.plane.settings.state_dir / "pid"
        source = await api.source({"pid": str(pid_file)})
        answer = await api.ask("sources/discover_schema", sourceId=source["sourceId"])
        assert words in answer["jobInfo"]["failureReason"]["externalMessage"]
        assert not _lives(int(pid_file.read_text()))


async def test_secrets_reach_the_connector_in_memory_only(with_script: Scripted) -> None:
    """Not by argument, environment or file; and it sees little of our environment."""
    script = """
    say(type="CONNECTION_STATUS", connectionStatus={"status": "SUCCEEDED", "message": json.dumps({
        "argv": sys.argv, "env": dict(os.environ), "parent": os.getppid(), "token": config["token"],
        "group": os.getpgid(0) == os.getpid()})})
    """
    os.environ["CANARY_OF_OURS"] = "visible"
    extra = {RECORDS.name: {"EXTRA": "given"}}
    async with with_script(script, connector_env=extra) as api:
        source = await api.source({"token": "canary-4711"})
        assert source["connectionConfiguration"] == {"token": "**********"}
        answer = await api.ask("sources/check_connection", sourceId=source["sourceId"])
        seen = orjson.loads(answer["message"])
        assert seen["token"] == "canary-4711"
        assert "canary-4711" not in str([seen["argv"], seen["env"]])
        assert seen["env"]["EXTRA"] == "given"
        assert "CANARY_OF_OURS" not in seen["env"]
        assert seen["group"] is True
        folder = api.plane.settings.state_dir
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for path in folder.iterdir():
            if path.is_file():
                assert not path.stat().st_mode & 0o077, path
    del os.environ["CANARY_OF_OURS"]


async def test_renewed_configuration_is_stored_and_not_logged(
    with_script: Scripted, capfd: pytest.CaptureFixture[str]
) -> None:
    """From every verb; masked values of an update mean the newest secret."""
    script = f"""
    renewed = dict(config, token=config["token"] + "+" + verb)
    say(type="CONTROL", control={{"type": "CONNECTOR_CONFIG", "emitted_at": 1,
        "connectorConfig": {{"config": renewed}}}})
    if verb == "check":
        say(type="CONNECTION_STATUS", connectionStatus={{"status": "SUCCEEDED"}})
    if verb == "discover":
        say(type="CATALOG", catalog={CATALOG!r})
    """
    async with with_script(script) as api:
        source = await api.source({"token": "canary"})
        body = {"sourceId": source["sourceId"]}
        answer = await api.ask("sources/check_connection", **body)
        assert answer["jobInfo"]["connectorConfigurationUpdated"] is True
        answer = await api.ask("sources/discover_schema", **body)
        assert answer["jobInfo"]["connectorConfigurationUpdated"] is True
        connection = await api.connection(source, [stream("rotated", {"id": TEXT})])
        await api.synced(connection)
        masked = {"token": "**********", "other": 1}
        await api.ask("sources/update", **body, name="x", connectionConfiguration=masked)
        row = api.plane.metadata.one("SELECT config FROM actors WHERE id = ?", source["sourceId"])
        assert row is not None
        assert row["config"] == {"token": "canary+check+discover+read", "other": 1}
    assert "canary" not in "".join(capfd.readouterr())


async def test_update_is_checked_before_it_is_stored(with_script: Scripted) -> None:
    """Masks mean the stored secrets; what is renewed meanwhile is kept."""
    script = """
    if config["token"] == "works once":
        say(type="CONTROL", control={"type": "CONNECTOR_CONFIG", "emitted_at": 1,
            "connectorConfig": {"config": dict(config, token="renewed")}})
    works = config["token"] in ("works", "works once")
    say(type="CONNECTION_STATUS",
        connectionStatus={"status": "SUCCEEDED" if works else "FAILED", "message": "no"})
    """
    async with with_script(script) as api:
        source = await api.source({"token": "works"})

        async def check(**configuration: Any) -> tuple[str, bool]:
            answer = await api.ask(
                "sources/check_connection_for_update",
                sourceId=source["sourceId"],
                name="x",
                connectionConfiguration=configuration,
            )
            return answer["status"], answer["jobInfo"]["connectorConfigurationUpdated"]

        def stored() -> Any:
            row = api.plane.metadata.one(
                "SELECT config, name FROM actors WHERE id = ?", source["sourceId"]
            )
            assert row is not None
            assert row["name"] != "x"
            return row["config"]

        assert await check(token="wrong") == ("failed", False)
        assert await check(token="**********", other=1) == ("succeeded", False)
        assert stored() == {"token": "works"}
        assert await check(token="works once", other=2) == ("succeeded", True)
        assert stored() == {"token": "renewed", "other": 2}


async def test_failed_sync_publishes_no_partial_data(with_script: Scripted, db: Sql) -> None:
    """Overwriting keeps the old rows whole; an incremental stream ends at its last checkpoint."""
    script = """
    for number in range(3):
        record("half_full", {"id": number})
        record("half_inc", {"id": number})
    time.sleep(2.1)
    state("half_inc", {"at": 2})
    for number in range(3, 6):
        record("half_full", {"id": number})
        record("half_inc", {"id": number})
    if config["mode"] == "break":
        fail("the connection broke", failure_type="system_error")
    state("half_inc", {"at": 5})
    """
    streams = [
        stream("half_full", {"id": INTEGER}),
        stream("half_inc", {"id": INTEGER}, modes=UPSERT, key=["id"]),
    ]
    async with with_script(script) as api:
        source = await api.source({"mode": "break"})
        connection = await api.connection(source, streams)
        job = await api.synced(connection)

        assert job["job"]["status"] == "failed"
        summary = job["attempts"][0]["attempt"]["failureSummary"]
        assert summary["partialSuccess"] is True
        assert job["attempts"][0]["attempt"]["recordsSynced"] == 3
        assert await db.fetchval("SELECT to_regclass('half_full')") is None
        assert await db.fetchval("SELECT count(*) FROM half_inc") == 3
        answer = await api.ask("state/get", connectionId=connection["connectionId"])
        assert [each["streamState"] for each in answer["streamState"]] == [{"at": 2}]

        await api.ask(
            "sources/update",
            sourceId=source["sourceId"],
            name="x",
            connectionConfiguration={"mode": "work"},
        )
        assert (await api.synced(connection))["job"]["status"] == "succeeded"
        assert await db.fetchval("SELECT count(*) FROM half_full") == 6
        assert await db.fetchval("SELECT count(*) FROM half_inc") == 6
        answer = await api.ask("state/get", connectionId=connection["connectionId"])
        assert [each["streamState"] for each in answer["streamState"]] == [{"at": 5}]
        await api.ask(
            "sources/update",
            sourceId=source["sourceId"],
            name="x",
            connectionConfiguration={"mode": "break"},
        )
        await api.synced(connection)
        assert await db.fetchval("SELECT count(*) FROM half_full") == 6


async def test_transient_failures_are_tried_three_times(with_script: Scripted) -> None:
    """Each attempt is listed; other failures are not retried."""
    script = """
    fail("come back later", failure_type="transient_error")
    """
    async with with_script(script) as api:
        connection = await api.connection(await api.source(), [stream("never", {"id": TEXT})])
        job = await api.synced(connection)
        assert [each["attempt"]["status"] for each in job["attempts"]] == ["failed"] * 3
        (status,) = await api.ask("connections/status", connectionIds=[connection["connectionId"]])
        assert status["connectionSyncStatus"] == "incomplete"
        assert status["failureReason"]["externalMessage"] == "come back later"


@pytest.mark.timeout(120)
async def test_kill_9_leaves_no_connector_and_no_open_job(
    tmp_path: Path, warehouse_url: str
) -> None:
    """Real processes: the connector goes with the server; its job is failed when that is back."""
    port = free_port()
    env = {
        **os.environ,
        "LOCAL_AIRBYTE_PORT": str(port),
        "LOCAL_AIRBYTE_STATE_DIR": str(tmp_path / "state"),
        "LOCAL_AIRBYTE_CONNECTORS_DIR": str(CONNECTORS),
        "LOCAL_AIRBYTE_WAREHOUSE_URL": warehouse_url,
        "TMPDIR": str(tmp_path),  # what is killed leaves what it wrote there
    }

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "local.airbyte"]
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL)

    server = start()
    token = {"Authorization": f"Bearer {token_of(tmp_path / 'state')}"}
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", timeout=60, headers=token
    ) as http:
        api = _Remote(http)
        try:
            await _answers(http)
            source = await api.ask(
                "sources/create",
                workspaceId=str(WORKSPACE_ID),
                sourceDefinitionId=str(RECORDS.definition_id),
                name="many",
                connectionConfiguration={"count": 10_000_000},
            )
            connection = await Api.connection(api, source, [stream("products", {"make": TEXT})])  # type: ignore[arg-type]
            job = await api.ask("connections/sync", connectionId=connection["connectionId"])
            connectors = await asyncio.to_thread(_children, server.pid)
            os.kill(server.pid, signal.SIGKILL)
            server.wait(10)
            deadline = time.monotonic() + 5
            while any(map(_lives, connectors)) and time.monotonic() < deadline:
                time.sleep(0.05)  # noqa: ASYNC251 - nothing else is at work here
            assert [pid for pid in connectors if _lives(pid)] == []

            server = start()
            await _answers(http)
            answer = await api.ask("jobs/get", id=job["job"]["id"])
            assert answer["job"]["status"] == "failed"
            (attempt,) = answer["attempts"]
            (reason,) = attempt["attempt"]["failureSummary"]["failures"]
            assert reason["externalMessage"] == "The server restarted."
        finally:
            server.terminate()
            server.wait(20)


class _Remote:
    """The few questions asked of a plane in another process."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def ask(self, path: str, **body: Any) -> Any:
        answer = await self.http.post(f"/api/v1/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


async def _answers(http: httpx.AsyncClient) -> None:
    async def is_up() -> bool:
        try:
            return (await http.get("/api/v1/health")).status_code == 200
        except httpx.ConnectError:
            return False

    await until(is_up)


def _children(pid: int) -> list[int]:
    """The connector processes of a server, once they are at work."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        command = ["/bin/ps", "-o", "pid=", "--ppid", str(pid)]
        listing = subprocess.run(command, capture_output=True, text=True, check=False)
        if listing.stdout.split():
            time.sleep(2)
            return [int(each) for each in listing.stdout.split()]
        time.sleep(0.05)
    raise AssertionError("no connector was started")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


async def test_without_anonymous_memory_a_private_file_is_used(
    with_script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is gone after the run."""
    monkeypatch.setattr(connector_process, "HAS_MEMFD", False)
    script = """
    seen = [sys.argv[3], oct(os.stat(sys.argv[3]).st_mode & 0o777)]
    say(type="CONNECTION_STATUS", connectionStatus={"status": "SUCCEEDED",
        "message": json.dumps(seen)})
    """
    async with with_script(script) as api:
        source = await api.source({"token": "canary"})
        answer = await api.ask("sources/check_connection", sourceId=source["sourceId"])
        path, mode = orjson.loads(answer["message"])
        assert path.startswith(str(api.plane.settings.state_dir))
        assert mode == "0o600"
        assert stat.S_IMODE((api.plane.settings.state_dir / "run").stat().st_mode) == 0o700
        assert not list((api.plane.settings.state_dir / "run").glob("*.*"))


def test_leftovers_of_a_killed_server_are_removed(tmp_path: Path) -> None:
    """Its connector, by pid and command, and its files; never another process with that pid."""
    left = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)
    stranger = subprocess.Popen(["/bin/sleep", "61"], start_new_session=True)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / f"{left.pid}.pid").write_text("sleep 60")
    (folder / f"{stranger.pid}.pid").write_text("source-salesforce")
    (folder / "config.json").write_text("canary")

    connector_process.Runner(folder, asyncio.Semaphore(1)).sweep()

    assert left.wait(5) == -signal.SIGKILL
    assert stranger.poll() is None
    assert list(folder.iterdir()) == []
    stranger.kill()
    stranger.wait(5)
