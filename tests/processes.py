"""Helpers to run processes, and to check which ones are alive."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any


def run(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to completion and capture its output; a non-zero exit code is no error."""
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def are_gone(pids: Iterable[int]) -> bool:
    """Whether none of these processes is alive."""
    return not any(map(is_alive, pids))


def is_alive(pid: int) -> bool:
    """Whether a process with this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def family(pid: int) -> set[int]:
    """Return a process id with those of all its descendants."""
    listed = subprocess.run(
        ["/bin/ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    parents = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found = {pid}
    while more := {child for child, parent in parents if parent in found} - found:
        found |= more
    return found


def memory(pid: int) -> bytes:
    """All writable memory of a process."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            area, flags = line.split()[:2]
            if flags.startswith("rw"):
                first, last = (int(one, 16) for one in area.split("-"))
                file.seek(first)
                found.append(file.read(last - first))
    return b"".join(found)


def variables(pid: int) -> str:
    """The environment of a process; of a process of the fork server, what it has in memory."""
    given = Path(f"/proc/{pid}/environ").read_bytes()
    if b"local.processes.fork_server" in Path(f"/proc/{pid}/cmdline").read_bytes():
        given = b"\0".join(_VARIABLE.findall(memory(pid)))
    return given.decode(errors="replace")


_VARIABLE = re.compile(rb"\0([A-Z][A-Z0-9_]+=[^\0]+)(?=\0)")


def becomes_true(fact: Callable[[], bool], timeout_s: float) -> bool:
    """Poll until `fact` returns True; False after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
