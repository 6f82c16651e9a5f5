"""Servers of a mesh that stop answering for a while, without ending."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from local.processes.servers import Server
from tests.processes import family


@contextmanager
def not_answering(server: Server) -> Iterator[None]:
    """Stop a server's processes, and let them go on afterwards."""
    pids = family(server.pid)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
