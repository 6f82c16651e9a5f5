"""Hardening of the auth_broker's process: no other may read its memory or environment."""

from __future__ import annotations

import ctypes
import errno
import resource
import sys

from shared.observability import logs

log = logs.get(__name__)

_PR_SET_DUMPABLE = 4
"""prctl(2): at 0, only root can read `/proc/PID/environ` and `/proc/PID/mem`."""


def harden() -> None:
    """Disable core dumps and, on Linux, access to this process by others of the same user."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not sys.platform.startswith("linux"):
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        log.warning("process_not_hardened", cause=errno.errorcode.get(ctypes.get_errno()))
