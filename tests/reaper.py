"""Cleans up after a test run, however it ended: ends its processes, deletes its temporary folder.

A script of its own, started with the run's mark and folder. Its standard input ends when the run
does, by `kill -9` as well. It ends every process that has the mark in its environment; processes
without it are children that `local/leash.py` ties to one of those.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

VARIABLE = "AAM_TEST_RUN"
"""The environment variable of the mark: a run inside a run has its parent's as its start."""
PATIENCE_S = 15.0


def marked(mark: str) -> dict[int, str]:
    """The processes of a run and of the runs inside it: pid and command line."""
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


def clean(mark: str, folder: Path) -> None:
    """Until nothing is left, or patience is; a server may still be writing when it starts."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        processes = marked(mark)
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # Where Postgres runs as another user, its data may be elsewhere (local/servers.py).
        for parent, names, files in os.walk(folder):
            link = Path(parent, "elsewhere")
            if "elsewhere" in (*names, *files) and link.is_symlink():
                shutil.rmtree(link.resolve(), ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        if not processes and not folder.exists():
            return
        time.sleep(0.05)


if __name__ == "__main__":
    while os.read(0, 64):
        pass
    clean(sys.argv[1], Path(sys.argv[2]))
