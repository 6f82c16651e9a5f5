"""A process that is tied to another ends with it, and takes along what it started itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests import processes
from tests.processes import are_gone, becomes_true, family

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[3]

_TIED = """
    import signal, subprocess, sys, time
    from local import exit_with_process
    from local.processes import exit_with_parent
    if sys.argv[1] == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = exit_with_parent.ChildProcess(["/bin/sleep", "60"], log=subprocess.DEVNULL)
    exit_with_process.tie_to([int(pid) for pid in sys.argv[2:]], grace_s=0.2)
    print(child.pid, flush=True)
    time.sleep(60)
"""


@contextmanager
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    """A process to be tied to."""
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def tied(to: list[int], *, manner: str = "willing") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A tied process below two shells, and the process that it started."""
    script = [sys.executable, "-c", textwrap.dedent(_TIED), manner, *map(str, to)]
    shells = ["bash", "-c", 'bash -c "$@"; true', "-", '"$@"; true', "-"]
    with subprocess.Popen(
        [*shells, *script], stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    ) as shell:
        assert shell.stdout is not None
        try:
            yield shell, int(shell.stdout.readline())
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)


@pytest.mark.parametrize("manner", ["willing", "stubborn"])
def test_tied_process_ends_with_its_owner(manner: str) -> None:
    """By kill -9 of the owner, below shells, and also where it ignores SIGTERM."""
    with sleeping() as first, sleeping() as second:
        with tied([first.pid, second.pid], manner=manner) as (shell, child):
            assert shell.poll() is None
            assert not are_gone([child])
            second.kill()
            assert shell.wait(10) == 0
        assert becomes_true(lambda: are_gone([child]), 10)


def test_process_tied_to_a_dead_owner_does_not_start() -> None:
    """It prints one line."""
    with sleeping() as process:
        process.kill()
    refused = processes.run(
        [sys.executable, "-m", "local", "up"],
        env=os.environ | {"AAM_TIED_TO_PID": f"{process.pid}"},
        timeout=60,
        cwd=ROOT,
    )
    assert refused.returncode == 1
    assert refused.stderr == "A process of AAM_TIED_TO_PID has already ended.\n"


def test_watcher_has_an_empty_environment() -> None:
    """The environment of the process may hold credentials."""
    script = "from local.processes.exit_with_parent import ChildProcess\n"
    script += "held = ChildProcess(['/bin/sleep', '60'], log=2); print(flush=True); held.wait(60)"
    environment = os.environ | {"CREDENTIAL_X__SECRET": "for one process alone"}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    ) as starter:
        try:
            assert starter.stdout is not None
            starter.stdout.readline()
            assert becomes_true(lambda: len(_environments(starter.pid)) == 2, 10)
            environments, started = _environments(starter.pid), family(starter.pid)
        finally:
            starter.kill()
    assert becomes_true(lambda: are_gone(started), 10)
    assert environments.pop("watcher") == b""
    assert b"CREDENTIAL_X__SECRET" in environments["/bin/sleep"]


def _environments(starter: int) -> dict[str, bytes]:
    """Those of the processes that a process started."""
    found = {}
    for pid in family(starter) - {starter}:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        name = "watcher" if b"watch" in command else command[0].decode()
        found[name] = Path(f"/proc/{pid}/environ").read_bytes()
    return found
