"""Ends this process when another one ends, even by kill -9 and with shells in between.

`AAM_TIED_TO_PID` names the other processes. The children of this process end with it: see
`local.processes.exit_with_parent`.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Sequence

GRACE_S = 30.0
"""How long this process may take to end before it is killed."""

_POLL_S = 0.5


def tie_to(pids: Sequence[int], *, grace_s: float = GRACE_S) -> None:
    """Send this process SIGTERM as soon as one of `pids` has ended, and SIGKILL `grace_s` later.

    Raises:
        ProcessLookupError: one of them has ended already.
    """
    for pid in pids:
        os.kill(pid, 0)
        gone = _pidfd(pid)
        watch = threading.Thread(
            target=_end_with, args=(pid, gone, grace_s), name=f"tied-to-{pid}", daemon=True
        )
        watch.start()


def _pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None where not supported."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:  # a kernel before 5.3, or a sandbox that forbids it
        return None


def _end_with(pid: int, gone: int | None, grace_s: float) -> None:
    if gone is None:
        while _is_alive(pid):
            time.sleep(_POLL_S)
    else:
        poll = select.poll()
        poll.register(gone, select.POLLIN)
        poll.poll()
        os.close(gone)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
