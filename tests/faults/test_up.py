"""`make up` with real processes: start, supervision, stop, and cleanup after a kill."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from local import env_files
from local.processes import servers
from local.processes.servers import CONSOLE, SERVICES
from local.settings import Settings
from tests import leaks, processes, reaper
from tests.processes import are_gone, becomes_true, family, variables

pytestmark = pytest.mark.process

READY_TIMEOUT_S = 90
CLIENT_SECRET = leaks.canary("the console's secret at the issuer, given to `up`")


class Up:
    """One `python -m local up` process, with its own ports and state."""

    def __init__(self, folder: Path) -> None:
        names = Settings.port_names()
        ports = servers.free_ports(len(names))
        self.ports = dict(zip(names, ports, strict=True))
        self.state = folder / "state"
        self.output = folder / "output"
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("AAM_", "CREDENTIAL_"))
        }
        self.environment = (
            environment
            | {f"AAM_{name.upper()}": str(port) for name, port in self.ports.items()}
            | {"AAM_STATE_DIR": str(self.state), "COLUMNS": "80"}
            | {reaper.VARIABLE: os.environ[reaper.VARIABLE]}
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, by: Sequence[str] = ()) -> None:
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [*by, sys.executable, "-m", "local", "up"],
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait_for("Ready in", READY_TIMEOUT_S)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def wait_for(self, words: str, timeout_s: float) -> None:
        def is_printed() -> bool:
            assert self.process.poll() is None, self.printed_and_logged()
            return words in self.output.read_text()

        assert becomes_true(is_printed, timeout_s), self.printed_and_logged()

    def printed_and_logged(self) -> str:
        """What it printed, and the end of each log."""
        logs = sorted((self.state / "logs").glob("*.log"))
        ends = [f"== {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs]
        return "\n".join([self.output.read_text(), *ends])

    def pid_of(self, name: str) -> int:
        """Return the pid in the table that `up` prints."""
        rows = [line.split() for line in self.output.read_text().splitlines()]
        return next(int(row[-1]) for row in rows if row and row[0] == name)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run another command for the same mesh."""
        return processes.run(
            [sys.executable, "-m", "local", command],
            env=self.environment,
            timeout=60,
        )


@pytest.fixture
def up() -> Iterator[Up]:
    """A mesh that is not started yet; stopped and deleted after the test."""
    folder = servers.temporary_dir()
    one = Up(folder)
    yield one
    if one._process is not None:
        one._process.terminate()
        one._process.wait(30)
    leaks.add_mesh(one.state)
    assert one.run("clean").returncode == 0
    one.output.unlink(missing_ok=True)
    folder.rmdir()


def test_up_supervises_and_stops_the_mesh(up: Up) -> None:
    """It restarts killed processes, rejects a second mesh, and cleans up on exit."""
    up.environment |= {
        "OIDC_ISSUER": "http://127.0.0.1:1",
        "OIDC_AUDIENCE": "aam",
        "OIDC_CLIENT_ID": "console",
        "OIDC_CLIENT_SECRET": CLIENT_SECRET,
    }
    up.start()
    environment = env_files.read(up.state / "env")
    for name in SERVICES:
        address = environment[name.upper()]
        assert address == f"http://127.0.0.1:{up.ports[f'{name}_port']}"
        with urllib.request.urlopen(f"{address}/ready", timeout=10) as answer:  # noqa: S310
            assert answer.status == 200
    found = family(up.process.pid)
    assert len(found) > 9

    _assert_link_signs_in_once(up)
    _assert_secrets_are_where_they_belong(up, found, environment)
    _assert_files_are_private(up.state)
    _assert_another_user_reads_nothing(up.state, found)

    second = up.run("up")
    assert second.returncode == 1
    assert second.stderr == (
        f"A mesh is already running in {up.state} (pid {up.process.pid}): stop it, "
        "or name another folder with AAM_STATE_DIR.\n"
    )
    refused = up.run("clean")
    assert refused.returncode == 1
    assert "A mesh is already running" in refused.stderr

    os.kill(up.pid_of("schema_observer"), signal.SIGKILL)
    up.wait_for("schema_observer ended with -9", 10)
    up.wait_for("schema_observer is running again", 60)
    with urllib.request.urlopen(f"{environment['SCHEMA_OBSERVER']}/health", timeout=10) as answer:  # noqa: S310
        assert answer.status == 200
    os.kill(up.pid_of("postgres"), signal.SIGKILL)
    up.wait_for("postgres ended with -9", 10)
    up.wait_for("postgres is running again", 30)

    found |= family(up.process.pid)
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(30) == 0
    assert "Stopped in" in up.output.read_text()
    assert becomes_true(lambda: are_gone(found), 5)
    assert not (up.state / "env").exists()


@pytest.mark.deep
def test_killed_up_leaves_no_process_and_starts_again(up: Up) -> None:
    """After kill -9 of the supervisor all its processes end; the next `make up` just works.

    The same after kill -9 of its ancestor process, with a shell between them.
    """
    up.start()
    found = family(up.process.pid)
    assert len(found) > 9
    key = (up.state / "auth").read_text().split()[-1]
    assert key in up.output.read_text()

    up.process.kill()
    up.process.wait(10)
    assert becomes_true(lambda: are_gone(found), 10)

    # The minimum: any start logs more than this, so that the next one rotates the log.
    most_bytes = max(1024, (up.state / "logs" / "orchestrator.log").stat().st_size)
    with subprocess.Popen(["/bin/sleep", "600"]) as tied_to:
        try:
            up.environment |= {
                "AAM_TIED_TO_PID": f"{tied_to.pid}",
                "AAM_LOG_MAX_BYTES": f"{most_bytes}",
            }
            up.start(by=["bash", "-c", '"$@"; true', "-"])
            found = family(up.process.pid)
            assert (up.state / "auth").read_text().split()[-1] == key
            assert key not in up.output.read_text()
            assert becomes_true((up.state / "logs" / "orchestrator.log.1").exists, 10)
        finally:
            tied_to.kill()
    assert becomes_true(lambda: are_gone(found - {up.process.pid}), 30)
    del up.environment["AAM_TIED_TO_PID"]
    assert all(log.stat().st_size <= most_bytes for log in (up.state / "logs").glob("*.log.*"))


def test_occupied_port_is_reported_in_one_line(up: Up) -> None:
    """The line names the port and the variable that changes it."""
    with socket.create_server(("127.0.0.1", up.ports["orchestrator_port"])):
        refused = up.run("up")

    assert refused.returncode == 1
    port = up.ports["orchestrator_port"]
    assert refused.stderr == f"Port {port} is taken: set AAM_ORCHESTRATOR_PORT to a free one.\n"
    assert not (up.state / "postgres").exists()


def test_same_port_for_two_servers_is_reported_in_one_line(up: Up) -> None:
    """Both variables are named."""
    mine = up.environment["AAM_RAG_ENGINE_PORT"]
    up.environment["AAM_RAG_ENGINE_PORT"] = up.environment["AAM_AUTH_BROKER_PORT"]

    refused = up.run("up")

    port = up.environment["AAM_AUTH_BROKER_PORT"]
    up.environment["AAM_RAG_ENGINE_PORT"] = mine
    assert refused.returncode == 1
    assert refused.stderr == f"AAM_AUTH_BROKER_PORT and AAM_RAG_ENGINE_PORT are both {port}.\n"


def test_invalid_setting_is_reported_in_one_line(up: Up) -> None:
    """The variable is named, and its value is not shown."""
    up.environment["AAM_VALKEY_PORT"] = "canary"

    refused = up.run("up")

    up.environment["AAM_VALKEY_PORT"] = str(up.ports["valkey_port"])
    assert refused.returncode == 1
    assert refused.stderr == "Invalid settings: AAM_VALKEY_PORT.\n"


def test_events_without_a_mesh_name_the_command_to_start_one(up: Up) -> None:
    refused = up.run("events")

    assert refused.returncode == 1
    assert refused.stderr.endswith("start one with `make up`.\n")


def _assert_secrets_are_where_they_belong(
    up: Up, found: set[int], addresses: dict[str, str]
) -> None:
    """Assert that processes have only their own secrets, and none on a command line."""
    postgres = up.state / "postgres"
    secrets = {
        "owner of the registry": (postgres / "password").read_text(),
        "warehouse": (postgres / "warehouse_password").read_text(),
        "events": (up.state / "valkey" / "password").read_text(),
        "airbyte": addresses["AIRBYTE_API_KEY"],
        "sample org": (up.state / "sample_org" / "auth").read_text().split()[-1],
        "credential": "CREDENTIAL_SALESFORCE_PROD__CLIENT_SECRET=",
        "client of the issuer": CLIENT_SECRET,
    }
    callers = {"orchestrator", "drift_repair_agent", "schema_observer"}
    shared_password = (postgres / "services_password").read_text()
    of_services = {one: servers.password_of(one, shared_password) for one in SERVICES}
    secrets |= {f"login of {one}": password for one, password in of_services.items()}
    secrets["what the logins are derived from"] = shared_password
    holders: dict[str, set[str]] = {
        **{f"login of {one}": {one} for one in SERVICES},
        "what the logins are derived from": set(),
        "owner of the registry": set(),
        "warehouse": {"airbyte"},
        "events": callers | {"rag_engine"},
        "airbyte": callers,
        "sample org": set(),
        "credential": {"auth_broker"},
        "client of the issuer": {CONSOLE, "up"},  # which gives it to the console
    }
    others = (CONSOLE, "airbyte", "sample_org", "valkey")
    names = {up.pid_of(name): name for name in (*SERVICES, *others)} | {up.process.pid: "up"}
    held: dict[str, set[str]] = {name: set() for name in secrets}
    for pid in found:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
            environment = variables(pid)
        except ProcessLookupError:
            continue
        assert not [name for name, secret in secrets.items() if secret in command]
        if "exit_with_parent.py" in command:
            assert environment == ""
        for name, secret in secrets.items():
            if secret in environment:
                held[name].add(names.get(pid, command))
    assert held == holders


def _assert_link_signs_in_once(up: Up) -> None:
    """The link that `up` prints gives a session at the console, and so does that of `sign-in`."""
    console = f"http://127.0.0.1:{up.ports['console_port']}"
    printed = up.output.read_text().splitlines()
    assert printed[1] == f"The console: {console}"
    for link in (printed[3], up.run("sign-in").stdout.strip()):
        assert link.startswith(f"{console}/sign-in?token=")
        first, second = (httpx.get(link, timeout=30) for _ in range(2))
        assert (first.status_code, first.headers["location"]) == (303, "/")
        assert first.headers["set-cookie"].startswith("aam-local=")
        assert second.status_code == 403


def _assert_files_are_private(state: Path) -> None:
    """Assert that only the user can read the mesh's files, including later ones."""
    files = [path for path in state.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 20
    assert [path for path in files if _is_open_to_others(path, below=state)] == []
    for name in ("logs", "valkey", "keys", "airbyte", "sample_org"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o700
    written = subprocess.run(
        ["bash", "-c", f"source {state}/env; touch {state}/answer.json; umask"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert written.stdout == "0077\n"
    assert stat.S_IMODE((state / "answer.json").stat().st_mode) == 0o600


def _assert_another_user_reads_nothing(state: Path, found: set[int]) -> None:
    """Assert that another user can read neither files nor environments of the mesh."""
    if os.geteuid() != 0:
        return  # only root can switch users; the file modes are checked above
    named = (Path(f"/proc/{pid}/{name}") for pid in found for name in ("environ", "mem"))
    paths = [*state.rglob("*"), *named]
    tried = processes.run(
        ["/usr/bin/xargs", "-0", "head", "-q", "-c", "1"],
        input="\0".join(str(path) for path in paths if not path.is_dir()),
        user=54321,
        group=54321,
        extra_groups=[],
        cwd="/",
        env={},
    )
    assert tried.stdout == ""
    assert tried.stderr.count("Permission denied") > 20


def _is_open_to_others(path: Path, *, below: Path) -> bool:
    folders = [folder for folder in path.parents if folder.is_relative_to(below)]
    can_reach = all(folder.stat().st_mode & stat.S_IXOTH for folder in folders)
    return can_reach and bool(path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH))


@pytest.mark.deep
def test_two_replicas_of_every_service(tmp_path: Path) -> None:
    """They have separate ports and one registry; while one is down the other works."""
    up = Up(tmp_path)
    up.environment["AAM_REPLICAS"] = "2"
    up.start()
    try:
        first, second = up.ports["orchestrator_port"], up.ports["orchestrator_port"] + 100
        kept, archived = uuid4(), uuid4()
        registry_url = env_files.read(up.state / "env")["SUPABASE_DB_URL"]
        asyncio.run(_insert_failed_connections(registry_url, kept, archived))

        name, _, value = (up.state / "auth").read_text().strip().partition(": ")
        key = {name: value}

        def listed(port: int) -> set[str]:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/connections", headers=key)
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
                return {one["id"] for one in json.load(answer)["items"]}

        assert listed(first) == listed(second) == {str(kept), str(archived)}
        for name in SERVICES:
            assert up.pid_of(name) != up.pid_of(f"{name}-2")
        os.kill(up.pid_of("orchestrator"), signal.SIGKILL)
        archiving = urllib.request.Request(
            f"http://127.0.0.1:{second}/connections/{archived}", method="DELETE", headers=key
        )
        with urllib.request.urlopen(archiving, timeout=20) as answer:  # noqa: S310
            assert answer.status == 204
        up.wait_for("orchestrator is running again", 60)
        assert listed(first) == listed(second) == {str(kept)}
    finally:
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(30) == 0


async def _insert_failed_connections(registry_url: str, *ids: UUID) -> None:
    """Insert connections of failed onboardings, which have no objects in Airbyte."""
    sql = await asyncpg.connect(registry_url)
    await sql.executemany(
        "INSERT INTO connections (id, name, source_type, airbyte_destination_id, status)"
        " VALUES ($1, $2, 'Salesforce', $3, 'FAILED')",
        [(one, str(one), uuid4()) for one in ids],
    )
    await sql.close()
