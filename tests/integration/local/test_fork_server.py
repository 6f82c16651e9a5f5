"""Processes that are forked from one that has imported their libraries."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.processes import fork_server, servers
from local.processes.exit_with_parent import ChildProcess
from local.processes.fork_server import ForkedProcess, ForkServer
from local.service_processes import ROOT, Program
from local.supervisor import SHARED_MODULES
from tests.processes import are_gone, becomes_true, memory

# Elsewhere `make up` starts each process as a new interpreter (decision 0138).
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(  # elsewhere there is no fork server to test
        not fork_server.is_available(), reason="a fork server needs Linux 5.3 or later"
    ),
]

CANARY = b"canary-" + os.urandom(8).hex().encode()
"""Written as hexadecimal digits, so that this file does not hold it."""


class Forks:
    """A fork server, and the log of the processes that it started."""

    def __init__(self, folder: Path, *modules: str) -> None:
        self._processes: list[ForkedProcess] = []
        self.log = folder / "child.log"
        self.server_log = folder / "server.log"
        with servers.private_log(self.server_log) as log:
            self.server = ForkServer(modules, log=log, env={"PATH": os.defpath}, cwd=ROOT)

    def spawn(self, *command: str, **env: str) -> ForkedProcess:
        """Start a module with an environment."""
        with servers.private_log(self.log) as log:
            process = self.server.spawn("a child process", command, log=log, env=env)
        self._processes.append(process)
        return process

    def end(self) -> None:
        """Stop the server, and release what its processes held."""
        self.server.stop()
        for process in self._processes:
            process.stop()

    def serve(self, **env: str) -> ForkedProcess:
        """Start a web server on any port, and wait until it runs."""
        process = self.spawn("http.server", "0", "--bind", "127.0.0.1", **env)
        assert becomes_true(lambda: _name(process.pid) == "a child process", 20)
        return process


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[Forks]:
    """A fork server that has imported a module of the standard library."""
    forks = Forks(tmp_path, "http.server")
    yield forks
    forks.end()


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _parent(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"^PPid:\s+(\d+)", status, re.M)[0])


def test_module_runs_with_arguments_environment_and_log(forks: Forks) -> None:
    process = forks.spawn("calendar", "2026", "11", "no-such-argument", COLUMNS="60")
    assert process.wait(20) == 2
    assert "no-such-argument" in forks.log.read_text()
    assert process.exit_code() == 2


def test_environment_is_exactly_the_given_one(forks: Forks) -> None:
    process = forks.spawn("site", "--user-base", PYTHONUSERBASE="/given/alone")
    process.wait(20)
    assert forks.log.read_text().strip() == "/given/alone"


def test_exit_codes_are_those_of_signals(forks: Forks) -> None:
    stopped, killed = forks.serve(), forks.serve()
    assert stopped.exit_code() is None
    stopped.stop()
    killed.kill()
    assert (stopped.exit_code(), killed.exit_code()) == (-signal.SIGTERM, -signal.SIGKILL)
    killed.stop()
    killed.kill()


def test_each_process_leads_its_own_session(forks: Forks) -> None:
    process = forks.serve()
    assert os.getsid(process.pid) == process.pid
    assert Path(f"/proc/{process.pid}/cwd").resolve() == ROOT


def test_environment_is_in_no_other_process(forks: Forks) -> None:
    """Not in a sibling's memory that started later, and not in the server's."""
    holder = forks.serve(CREDENTIAL=CANARY.decode())
    sibling = forks.serve()
    server = _parent(sibling.pid)
    assert CANARY in memory(holder.pid)
    assert CANARY not in memory(sibling.pid)
    assert CANARY not in memory(server)
    # An environment is readable for its user; this one is not even that of the process.
    assert CANARY not in Path(f"/proc/{holder.pid}/environ").read_bytes()


def test_processes_end_with_the_server(forks: Forks) -> None:
    processes = [forks.serve(), forks.serve()]
    pids = [process.pid for process in processes]
    forks.server.stop()
    assert are_gone(pids)
    assert [process.exit_code() for process in processes] == [-signal.SIGTERM] * 2


def test_processes_end_with_a_killed_server(forks: Forks) -> None:
    process = forks.serve()
    os.kill(_parent(process.pid), signal.SIGKILL)
    assert becomes_true(lambda: are_gone([process.pid]), 10)
    assert process.exit_code() == -signal.SIGKILL
    with pytest.raises(OSError, match=r"has ended|Broken pipe"):
        forks.spawn("http.server")


def test_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    """By kill -9 of the process that started the server."""
    script = """
        import sys
        from pathlib import Path
        from tests.integration.local.test_fork_server import Forks
        print(Forks(Path(sys.argv[1]), "http.server").serve().pid, flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        server = _parent(child)
        parent.kill()
    assert becomes_true(lambda: are_gone([child, server]), 15)


def test_module_that_cannot_be_imported_stops_nothing(tmp_path: Path) -> None:
    forks = Forks(tmp_path, "no_such_module", "http.server")
    try:
        assert forks.serve().exit_code() is None
        assert "No module named 'no_such_module'" in forks.server_log.read_text()
    finally:
        forks.end()


def test_shared_modules_start_no_thread(tmp_path: Path) -> None:
    """A fork of a process with threads may deadlock."""
    forks = Forks(tmp_path, *SHARED_MODULES)
    try:
        server = _parent(forks.serve().pid)
        assert len(list(Path(f"/proc/{server}/task").iterdir())) == 1
        assert forks.server_log.read_text() == ""
    finally:
        forks.end()


def test_restart_imports_everything_anew(forks: Forks, tmp_path: Path) -> None:
    """A service that is restarted runs the files as they are then."""
    port = servers.free_port()
    program = Program(
        "web",
        ["http.server", str(port), "--bind", "127.0.0.1"],
        port=port,
        ready="/",
        env={"PATH": os.defpath},
        log=tmp_path / "web.log",
        fork_server=forks.server,
    )
    with program.start():
        assert isinstance(program._process, ForkedProcess)
        program.kill()
        program.start()
        assert isinstance(program._process, ChildProcess)
