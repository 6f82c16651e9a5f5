"""Failpoints: named places where a test can kill or stop this process; inert by default."""

from __future__ import annotations

import os
import signal

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}
_armed: dict[str, tuple[signal.Signals, int]] = {}


def arm(spec: str) -> None:
    """Arm failpoints such as `onboard.source.after=kill;apply.update.before=stop#2`.

    Raises:
        ValueError: the specification is invalid.
    """
    _armed.clear()
    for part in filter(None, spec.split(";")):
        name, _, action = part.partition("=")
        word, _, time = action.partition("#")
        if not name or word not in _SIGNALS or not (time or "1").isdigit():
            raise ValueError("a failpoint must be name=kill, name=stop or name=term#2")
        _armed[name.strip()] = (_SIGNALS[word], int(time or "1"))


def at(name: str) -> None:
    """Send this process the signal of a failpoint if a test has armed it."""
    if not _armed or name not in _armed:
        return
    signal_, left = _armed[name]
    if left > 1:
        _armed[name] = (signal_, left - 1)
        return
    del _armed[name]
    os.kill(os.getpid(), signal_)
