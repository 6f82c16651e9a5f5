"""Cleans up after a test run, even a killed one: ends its processes, deletes its temporary folder.

A separate script, started with the run's mark and folder. Its standard input closes when the run
ends, even by `kill -9`. It then kills every process that has the mark in its environment or uses
the folder: a test may start a process with a different environment.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

VARIABLE = "AAM_TEST_RUN"
"""The environment variable with the mark; a nested run's mark starts with that of its parent."""
PATIENCE_S = 15.0


def marked(mark: str) -> dict[int, str]:
    """Return the processes of a run and of its nested runs: pid and command line."""
    wanted = f"{VARIABLE}={mark}".encode()
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environment = (entry / "environ").read_bytes()
            if environment.startswith(wanted) or b"\0" + wanted in environment:
                line = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                found[int(entry.name)] = line.strip()
    found.pop(os.getpid(), None)
    return found


def working_in(folder: Path) -> set[int]:
    """Return the processes that refer to the folder, work in it, or have a file of it open."""
    wanted, found = os.fsencode(folder), set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            names = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            links = [entry / "cwd", *(entry / "fd").iterdir()]
            if wanted in names or any(wanted in os.fsencode(_target(link)) for link in links):
                found.add(int(entry.name))
    return found


def _target(link: Path) -> str:
    with suppress(OSError):
        return os.readlink(link)
    return ""


def clean(mark: str, folder: Path, *, but: Collection[int]) -> None:
    """Kill and delete until nothing is left, at most PATIENCE_S: servers may still be writing."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        processes = (marked(mark).keys() | working_in(folder)) - {*but}
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # If Postgres runs as another user, its data may be elsewhere; see local.processes.servers.
        for parent, names, files in os.walk(folder):
            link = Path(parent, "elsewhere")
            if "elsewhere" in (*names, *files) and link.is_symlink():
                shutil.rmtree(link.resolve(), ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        if not processes and not folder.exists():
            return
        time.sleep(0.05)


if __name__ == "__main__":
    run = os.getppid()
    while os.read(0, 64):
        pass
    clean(sys.argv[1], Path(sys.argv[2]), but={os.getpid(), run})
