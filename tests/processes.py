"""Helpers to run processes, and to check which ones are alive."""

from __future__ import annotations

import os
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


def becomes_true(fact: Callable[[], bool], timeout_s: float) -> bool:
    """Poll until `fact` returns True; False after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
