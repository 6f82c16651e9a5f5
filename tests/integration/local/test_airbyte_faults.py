"""The local Airbyte outlives misbehaving connectors, and connectors do not outlive it."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import orjson
import pytest
from pydantic import SecretStr

from local.airbyte import WORKSPACE_ID, connector_process
from local.airbyte.connectors_backend import SCHEDULE_SECONDS
from local.airbyte.metadata import InUse, Metadata
from local.airbyte.settings import Flavour, Limits, Settings
from local.processes.servers import free_port
from local.request_guard import token_of
from tests.integration.local.airbyte_stage import (
    CONNECTORS,
    INTEGER,
    NOWHERE,
    RECORDS,
    ROOT,
    TEXT,
    Api,
    scripted,
    serving,
    stream,
)
from tests.pools import Sql
from tests.waiting import until

pytestmark = pytest.mark.process

Scripted = Callable[..., AbstractAsyncContextManager[Api]]
UPSERT = ("incremental", "append_dedup")
CATALOG = {"streams": [{"name": "s", "json_schema": {}, "supported_sync_modes": ["full_refresh"]}]}


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


async def test_every_kind_of_state_is_preserved(with_script: Scripted) -> None:
    """Global and legacy states are passed to the connector again, and returned by state/get."""
    script = """
    if config["kind"] == "global":
        say(type="STATE", state={"type": "GLOBAL", "global": {"shared_state": {"lsn": 7},
            "stream_states": [
                {"stream_descriptor": {"name": "kinds"}, "stream_state": {"at": 1}}]}})
    else:
        say(type="STATE", state={"type": "LEGACY", "data": {"at": 2}})
    record("kinds", {"seen": json.dumps(given.get("state"))})
    """
    async with with_script(script) as api:
        streams = [stream("kinds", {"seen": TEXT}, modes=("incremental", "append"))]
        for kind, member, sent in (
            ("global", "globalState", {"lsn": 7}),
            ("legacy", "state", {"at": 2}),
        ):
            connection = await api.connection(
                await api.source({"kind": kind}), streams, prefix=kind
            )
            await api.synced(connection)
            await api.synced(connection)
            state = await api.ask("state/get", connectionId=connection["connectionId"])
            assert state["stateType"] == kind
            assert state[member].get("shared_state", state[member]) == sent
            db = await asyncpg.connect(api.plane.settings.warehouse_url.get_secret_value())  # type: ignore[union-attr]
            rows = await db.fetch(f"SELECT seen FROM {kind}kinds ORDER BY _airbyte_extracted_at")  # noqa: S608 - ours
            await db.close()
            assert [row["seen"] == "null" for row in rows] == [True, False]
            assert str(next(iter(sent.values()))) in rows[1]["seen"]


async def test_changed_mode_ends_a_streams_state_and_deselection_does_not(
    with_script: Scripted,
) -> None:
    """Since 1.8 with the update, before with the next attempt; a stream left out keeps it."""
    script = """
    for selected in given["catalog"]["streams"]:
        if selected["sync_mode"] == "incremental":
            state(selected["stream"]["name"], {"at": 1})
    """
    append = ("incremental", "append")

    async def with_state(api: Api) -> list[str]:
        found = (await api.ask("state/get", **body)).get("streamState", [])
        return [each["streamDescriptor"]["name"] for each in found]

    for flavour in Flavour:
        async with with_script(script, flavour=flavour) as api:
            streams = [stream(name, {"id": TEXT}, modes=append) for name in ("one", "three", "two")]
            connection = await api.connection(await api.source(), streams)
            await api.synced(connection)
            body = {"connectionId": connection["connectionId"]}
            assert await with_state(api) == ["one", "three", "two"]

            full = stream("one", {"id": TEXT}, modes=("full_refresh", "append"))
            is_new = api.plane.release.since(1, 8)
            await api.ask("connections/update", **body, syncCatalog={"streams": [full, streams[2]]})
            assert await with_state(api) == (
                ["three", "two"] if is_new else ["one", "three", "two"]
            )
            await api.synced(connection)
            assert await with_state(api) == ["three", "two"]


async def test_refresh_reads_a_stream_from_its_start(with_script: Scripted, db: Sql) -> None:
    """Merge keeps its rows, Truncate replaces them; other streams resume, and so does the next."""
    script = """
    at = {s["stream"]["stream_descriptor"]["name"]: s["stream"]["stream_state"]["at"]
          for s in given.get("state", [])}
    for name in ("again", "other"):
        for number in range(at.get(name, 0), config["rows"]):
            record(name, {"id": number})
        state(name, {"at": config["rows"]})
    """
    append = ("incremental", "append")

    async def counts() -> tuple[int, int]:
        rows = [await db.fetchval(f"SELECT count(*) FROM refresh_{name}") for name in names]  # noqa: S608 - ours
        return rows[0], rows[1]

    names = ("again", "other")
    async with with_script(script) as api:
        streams = [stream(name, {"id": INTEGER}, modes=append) for name in names]
        connection = await api.connection(await api.source({"rows": 3}), streams, prefix="refresh_")
        await api.synced(connection)
        assert await counts() == (3, 3)
        for mode, expected in (("Merge", (6, 3)), ("Truncate", (3, 3))):
            answer = await api.ask(
                "connections/refresh",
                connectionId=connection["connectionId"],
                refreshMode=mode,
                streams=[{"streamName": "again"}],
            )
            assert (await api.ended(answer["job"]["id"]))["job"]["status"] == "succeeded"
            assert await counts() == expected
            await api.synced(connection)
            assert await counts() == expected


async def test_refresh_of_one_stream_keeps_the_shared_state(with_script: Scripted) -> None:
    """The connector gets the shared position without that stream's state; of all, it gets none."""
    script = """
    if "state" in given:
        shared = given["state"][0]["global"]
        names = [each["stream_descriptor"]["name"] for each in shared["stream_states"]]
        record("one", {"seen": ",".join([str(shared["shared_state"]["lsn"]), *names])})
    else:
        record("one", {"seen": "nothing"})
    say(type="STATE", state={"type": "GLOBAL", "global": {"shared_state": {"lsn": 7},
        "stream_states": [{"stream_descriptor": {"name": name}, "stream_state": {"done": True}}
                          for name in ("one", "two")]}})
    """
    append = ("incremental", "append")
    async with with_script(script) as api:
        streams = [stream(name, {"seen": TEXT}, modes=append) for name in ("one", "two")]
        connection = await api.connection(await api.source(), streams, prefix="shared_")
        await api.synced(connection)
        for named in ([{"streamName": "two"}], []):
            answer = await api.ask(
                "connections/refresh",
                connectionId=connection["connectionId"],
                refreshMode="Merge",
                streams=named,
            )
            await api.ended(answer["job"]["id"])
        db = await asyncpg.connect(api.plane.settings.warehouse_url.get_secret_value())  # type: ignore[union-attr]
        rows = await db.fetch("SELECT seen FROM shared_one ORDER BY _airbyte_extracted_at")
        await db.close()
        assert sorted(row["seen"] for row in rows) == ["7,one", "nothing", "nothing"]


async def test_paused_connection_continues_from_its_state(with_script: Scripted, db: Sql) -> None:
    """Healed and resumed by one update: no state is lost, no row is read or written twice."""
    script = """
    done = [s["stream"]["stream_state"]["at"] for s in given.get("state", [])]
    at = max(done, default=0) + 1
    record("orders", {"id": str(at), "at": at, "was": at - 1, "name": "n"})
    state("orders", {"at": at})
    """
    append = ("incremental", "append")
    fields = {"id": TEXT, "at": INTEGER, "was": INTEGER}
    minutely = {"basicSchedule": {"timeUnit": "minutes", "units": 1}}
    async with with_script(script) as api:
        before = stream("orders", fields, modes=append, cursor="at")
        connection = await api.connection(await api.source(), [before], prefix="paused_")
        await api.synced(connection)
        body = {"connectionId": connection["connectionId"]}
        state = await api.ask("state/get", **body)

        await api.ask(
            "connections/update",
            **body,
            status="inactive",
            breakingChange=True,
            scheduleType="basic",
            scheduleData=minutely,
        )
        api.plane.metadata.write("UPDATE jobs SET created_at = created_at - 3600")
        await asyncio.sleep(SCHEDULE_SECONDS + 0.5)
        await api.ask("connections/sync", **body, expect=500)
        (status,) = await api.ask("connections/status", connectionIds=[connection["connectionId"]])
        assert status["connectionSyncStatus"] == "failed"
        assert (await api.ask("state/get", **body)) == state

        grown = stream("orders", {**fields, "name": TEXT}, modes=append, cursor="at")
        healed = await api.ask(
            "connections/update",
            **body,
            syncCatalog={"streams": [grown]},
            sourceCatalogId=str(NOWHERE),
            status="active",
            breakingChange=False,
            scheduleType="manual",
        )
        assert (healed["status"], healed["breakingChange"]) == ("active", False)
        assert healed["sourceCatalogId"] == str(NOWHERE)
        assert (await api.ask("state/get", **body)) == state
        assert (await api.synced(connection))["job"]["status"] == "succeeded"

        kinds = ["sync", "reset_connection", "refresh", "clear"]
        jobs = await api.ask("jobs/list", configTypes=kinds, configId=connection["connectionId"])
        assert [job["job"]["configType"] for job in jobs["jobs"]] == ["sync", "sync"]
    rows = await db.fetch("SELECT at, was, name FROM paused_orders ORDER BY at")
    assert [tuple(row) for row in rows] == [(1, 0, None), (2, 1, "n")]


async def test_restart_keeps_everything(with_script: Scripted) -> None:
    """Sources with their secrets, catalogs, connections and jobs."""
    script = f"""
    if verb == "discover":
        say(type="CATALOG", catalog={CATALOG!r})
    """
    async with with_script(script) as api:
        source = await api.source({"token": "canary"})
        found = await api.ask("sources/discover_schema", sourceId=source["sourceId"])
        connection = await api.connection(source, [stream("s", {"id": TEXT})])
        job = await api.synced(connection)
        with pytest.raises(InUse):
            Metadata(api.plane.settings.state_dir)
    async with with_script(script) as api:
        assert await api.ask("sources/get", sourceId=source["sourceId"]) == source
        assert (
            await api.ask("connections/get", connectionId=connection["connectionId"]) == connection
        )
        assert await api.ask("jobs/get", id=job["job"]["id"]) == job
        again = await api.ask("sources/discover_schema", sourceId=source["sourceId"])
        assert again["catalogId"] == found["catalogId"]


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
