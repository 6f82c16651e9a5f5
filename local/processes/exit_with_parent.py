"""Ties a process to its parent: when the parent ends, even by kill -9, the process ends too.

A leash is a pair of sockets, one end of which is held only by the parent. The child first runs this
file as a script: it spawns a watcher that holds the other end, then execs the command, which keeps
the child's pid. The watcher is a separate program with an empty environment, since the command's
may contain secrets. The kernel's parent-death signal is not enough: it is tied to a thread, lost on
setuid, and unavailable on macOS.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

GRACE_S = 5.0
"""How long a process whose parent has ended may take to end before it is killed."""

STOP_WITHIN_S = 10.0

PRIVATE = 0o077
"""The umask of every process: its files are accessible only to its user."""

_WATCH = "watch"
_START = "start"


class ChildProcess:
    """A running child process, in its own session, that does not outlive this process."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: IO[bytes] | int,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: tuple[int, int] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start it; `user` is the uid and gid to run as, `stop_signal` the signal to stop it."""
        self._stop_signal = stop_signal
        uid, gid = user or (-1, -1)
        started = [_START, str(int(stop_signal)), str(uid), str(gid)]
        self._leash, other_end = socket.socketpair()
        with other_end:
            self._process = subprocess.Popen(  # noqa: S603 (our own command lines)
                [*_SCRIPT, *started, *command],
                stdin=other_end.fileno(),
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
                umask=PRIVATE,
                pass_fds=pass_fds,
            )
        self.pid = self._process.pid

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        code = self._process.poll()
        if code is not None:
            self._release()
        return code

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the exit code; None where it is still running after `timeout_s`."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self.exit_code()

    def stop(self) -> None:
        """Stop it, and kill it if it does not end in time; returns once it has ended."""
        if self._process.poll() is None:
            self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._release()

    def kill(self) -> None:
        """Kill it, as in a crash."""
        self._process.kill()
        self._process.wait()
        self._release()

    def _release(self) -> None:
        """Release the watcher, and wait until it closes its end."""
        if self._leash.fileno() == -1:
            return
        self._leash.settimeout(GRACE_S)
        with self._leash, suppress(OSError):
            self._leash.shutdown(socket.SHUT_WR)
            self._leash.recv(1)


_SCRIPT = (sys.executable, "-I", "-S", __file__)


def _watch(command: int, stop_signal: int) -> None:
    """Wait for the leash to close, then end `command` and the rest of its process group."""
    os.setsid()
    while os.read(0, 64):
        pass
    if os.getppid() == command:
        os.kill(command, stop_signal)
    deadline = time.monotonic() + GRACE_S
    while os.getppid() == command and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        os.killpg(command, signal.SIGKILL)
    except OSError:
        # The group is empty, as expected.
        return


def _inherited() -> list[int]:
    """The descriptors for the command alone."""
    return [number for number in map(int, os.listdir("/dev/fd")) if number > 2]


def _exec_as(stop_signal: int, uid: int, gid: int, command: list[str]) -> None:
    for ours in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ours, signal.SIG_DFL)
    # Not a fork, which would hold a copy of this environment while the command runs.
    os.posix_spawn(
        sys.executable,
        [*_SCRIPT, _WATCH, str(os.getpid()), str(stop_signal)],
        {},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            *((os.POSIX_SPAWN_CLOSE, number) for number in _inherited()),
        ],
    )
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    os.execvp(command[0], command)  # noqa: S606 (becoming the command is the purpose)


if __name__ == "__main__":
    if sys.argv[1] == _WATCH:
        _watch(int(sys.argv[2]), int(sys.argv[3]))
    else:
        _exec_as(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
