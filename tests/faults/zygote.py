"""Starts services by forking a process that has already imported them: 0.2 s instead of 2 s.

Its children are real processes that tests can kill. It reads one JSON command per line,
`{"app", "port", "environment", "log"}`, writes `{"pid"}` in response, and `{"pid", "code"}` when a
child exits. When its input closes, it kills all children.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from types import FrameType
from typing import Any

_MODULES = (
    "services.orchestrator.main",
    "services.drift_repair_agent.main",
    "services.auth_broker.main",
)
_children: set[int] = set()


def _report(**message: int) -> None:
    os.write(1, (json.dumps(message) + "\n").encode())


def _reap(_signal: int, _frame: FrameType | None) -> None:
    while _children:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _children.discard(pid)
        _report(pid=pid, code=os.waitstatus_to_exitcode(status))


def _become(order: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(order["environment"])
    import uvicorn  # noqa: PLC0415 (after the fork, in the child only)

    app = importlib.import_module(order["app"]).app
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=order["port"],
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=8,
    )


def main() -> None:
    """Execute commands until the input closes."""
    for module in (*_MODULES, "uvicorn.protocols.http.httptools_impl", "uvloop", "asyncpg"):
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, _reap)
    for line in sys.stdin:
        order = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _become(order)
                code = 0
            except BaseException:  # noqa: BLE001 (any error ends the child and is in its log)
                traceback.print_exc()
            finally:
                os._exit(code)
        _children.add(pid)
        _report(pid=pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    for pid in list(_children):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
