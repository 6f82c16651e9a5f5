"""A test that leaks resources fails, and a killed run leaves no processes or files."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests import processes, reaper

REPOSITORY = Path(__file__).parents[1]
_GONE_WITHIN_S = reaper.PATIENCE_S + 5

LEAVING = """
    import asyncio, os, socket, subprocess, tempfile
    import aiohttp
    import pytest

    kept = []

    @pytest.fixture(scope="module")
    def process():
        with subprocess.Popen(["sleep", "600"]) as running:
            yield running
            running.kill()

    async def test_task():
        kept.append(asyncio.create_task(asyncio.sleep(600)))

    async def test_transport():
        ours, theirs = socket.socketpair()
        kept.append((theirs, await asyncio.open_connection(sock=ours)))

    def test_listening():
        kept.append(socket.create_server(("127.0.0.1", 0)))

    async def test_session():
        kept.append(aiohttp.ClientSession())

    async def test_server():
        kept.append(await asyncio.start_server(lambda *_: None, "127.0.0.1", 0))

    def test_unreachable():
        one = [socket.socket()]
        one.append(one)

    def test_process():
        kept.append(subprocess.Popen(["sleep", "600"]))

    def test_folder():
        tempfile.mkdtemp(prefix="left-")

    @pytest.mark.parametrize("time", range(3))
    async def test_clean(process, tmp_path, time):
        (tmp_path / "file").touch()
        with tempfile.TemporaryDirectory(), socket.socket():
            await asyncio.create_subprocess_exec("true")
            await asyncio.sleep(0.05)

    def test_fails():
        kept.append(socket.socket())
        raise ValueError
"""

SERVING = """
    import asyncio
    import pytest

    kept = []

    @pytest.fixture(scope="module")
    async def server():
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
            yield server

    async def test_task_beside_a_server(server):
        kept.append(asyncio.create_task(asyncio.sleep(600)))
"""

ORPHANING = """
    import subprocess

    def test_orphan():
        subprocess.run(["bash", "-c", "sleep 600 > /dev/null 2>&1 & disown"], check=True)
"""


def _pytest(folder: Path, *arguments: str) -> list[str]:
    return [
        *(sys.executable, "-m", "pytest", "-p", "tests.leftovers", "-p", "no:schemathesis"),
        *arguments,
        *("-c", str(REPOSITORY / "pyproject.toml"), "--rootdir", str(folder), str(folder)),
    ]


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY)}


@pytest.mark.deep
def test_leftover_fails_the_test_that_left_it(tmp_path: Path) -> None:
    """Every kind of leaked resource is reported; those of a failed test are only cleaned up."""
    (tmp_path / "test_leaving.py").write_text(textwrap.dedent(LEAVING))
    (tmp_path / "test_serving.py").write_text(textwrap.dedent(SERVING))
    (tmp_path / "test_orphaning.py").write_text(textwrap.dedent(ORPHANING))
    run = processes.run(
        _pytest(tmp_path, "-q", "-rA", "--tb=short"),
        cwd=tmp_path,
        env=_environment() | {"AAM_LEFTOVERS_GRACE_S": "1"},
        timeout=240,
    )

    assert "1 failed" in run.stdout, run.stdout + run.stderr
    at_fault = re.findall(r"^ERROR test_\w+\.py::(\w+)", run.stdout, re.MULTILINE)
    assert sorted(at_fault) == [
        "test_folder",
        "test_listening",
        "test_orphan",
        "test_process",
        "test_server",
        "test_session",
        "test_task",
        "test_task_beside_a_server",
        "test_transport",
        "test_unreachable",
    ], run.stdout
    for line in (
        "- a task: <Task ",
        "- a transport: <_SelectorSocketTransport ",
        "- a listening socket: ('127.0.0.1', ",
        "- the process ",
        "- the temporary file left-",
        "- an open HTTP session: <aiohttp.client.ClientSession ",
    ):
        assert line in run.stdout, line


HANGING = """
    import os, subprocess, time
    from pathlib import Path
    from local.processes import servers

    def test_hangs(tmp_path):
        makefile = tmp_path / "Makefile"
        makefile.write_text("all:\\n\\t@sleep 600; true\\n")
        subprocess.Popen(["bash", "-c", f"sleep 600 & make -f {makefile}"], start_new_session=True)
        valkey = servers.start_valkey(tmp_path / "valkey")
        log = (tmp_path / "log").open("w")
        own = {"env": {}, "stdout": log, "start_new_session": True}
        unmarked = subprocess.Popen(["/bin/sleep", "600"], **own)
        report = Path(__file__).with_name("report.new")
        pids = f"{valkey.pid} {unmarked.pid}"
        run = f"{os.environ['AAM_TEST_RUN']} {os.environ['TMPDIR']}"
        report.write_text(f"{run} {pids}")
        report.rename(report.with_name("report"))
        time.sleep(600)
"""


@pytest.mark.deep
@pytest.mark.parametrize(
    "workers",
    [
        pytest.param([], id="alone"),
        pytest.param(["-n1"], id="-n1", marks=pytest.mark.deep),
    ],
)
def test_killed_run_leaves_nothing(tmp_path: Path, workers: list[str]) -> None:
    """After kill -9 of pytest no `make` with its children, server or temporary folder remains."""
    (tmp_path / "test_hanging.py").write_text(textwrap.dedent(HANGING))
    report = tmp_path / "report"
    with subprocess.Popen(
        _pytest(tmp_path, *workers), env=_environment(), stdout=subprocess.DEVNULL
    ) as run:
        try:
            _becomes_true(report.exists, within_s=120)
            mark, folder, *pids = report.read_text().split()
            _becomes_true(lambda: len(reaper.marked(mark)) >= 4, within_s=30)
        finally:
            run.send_signal(signal.SIGKILL)

    _becomes_true(lambda: not reaper.marked(mark), within_s=_GONE_WITHIN_S)
    _becomes_true(lambda: not any(_is_alive(int(pid)) for pid in pids), within_s=_GONE_WITHIN_S)
    _becomes_true(lambda: not Path(folder).exists(), within_s=_GONE_WITHIN_S)


def _is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def _becomes_true(holds: Callable[[], bool], *, within_s: float) -> None:
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)
