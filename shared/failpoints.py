"""Named places in the code where a test has this process killed or stopped; inert without one."""

from __future__ import annotations

import os
import signal

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}
_armed: dict[str, tuple[signal.Signals, int]] = {}


def arm(spec: str) -> None:
    """Read `onboard.source.after=kill;apply.update.before=stop#2`: the place, what, which time.

    Raises:
        ValueError: it cannot be read.
    """
    _armed.clear()
    for part in filter(None, spec.split(";")):
        name, _, action = part.partition("=")
        word, _, time = action.partition("#")
        if not name or word not in _SIGNALS or not (time or "1").isdigit():
            raise ValueError("a failpoint is written name=kill, name=stop or name=term#2")
        _armed[name.strip()] = (_SIGNALS[word], int(time or "1"))


def at(name: str) -> None:
    """Pass a place; where a test has armed it, the process gets the signal here."""
    if not _armed or name not in _armed:
        return
    signal_, left = _armed[name]
    if left > 1:
        _armed[name] = (signal_, left - 1)
        return
    del _armed[name]
    os.kill(os.getpid(), signal_)
