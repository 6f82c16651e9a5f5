"""Starts Python programs by forking a process that has already imported their libraries.

A start then takes a fraction of a second instead of seconds of imports, and the processes share the
memory of what they import. Each is a process of its own with its own environment, which only that
process reads: no other process, and not this server, ever holds it.

Linux only: a fork without exec is unsafe on macOS. A process's files are those at the time the
server started, so a restart should use `local.processes.exit_with_parent` instead.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from local.processes.exit_with_parent import GRACE_S, STOP_WITHIN_S, ChildProcess

_START_WITHIN_S = 60.0
_END_WITHIN_S = GRACE_S - 1
"""The watcher of this process kills it after `GRACE_S`."""
_PAUSE_S = 0.01
_MOST_BYTES = 64 * 1024
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


def is_available() -> bool:
    """Whether this system can run a fork server: Linux 5.3 or later."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


class ForkServer:
    """A server process that starts modules as its own child processes; ends with this process."""

    def __init__(
        self, modules: Sequence[str], *, log: IO[bytes], env: Mapping[str, str], cwd: Path
    ) -> None:
        """Start it with the modules to import. `env` must not contain secrets."""
        self._channel, other_end = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with other_end:
            number = other_end.fileno()
            self._process = ChildProcess(
                [sys.executable, "-m", __name__, str(number), *modules],
                log=log,
                env=env,
                cwd=cwd,
                pass_fds=(number,),
            )

    def spawn(
        self, name: str, command: Sequence[str], *, log: IO[bytes], env: Mapping[str, str]
    ) -> ForkedProcess:
        """Run `python -m command` as a new process called `name`.

        Raises:
            OSError: the server has ended, or did not respond in time.
        """
        channel, other_end = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with other_end, os.fdopen(os.memfd_create("environment"), "r+") as environment:
            json.dump(dict(env), environment)
            environment.flush()
            given = [other_end.fileno(), log.fileno(), environment.fileno()]
            order = json.dumps({"name": name, "command": list(command)}).encode()
            try:
                socket.send_fds(self._channel, [order], given)
            except OSError:
                channel.close()
                raise
        return ForkedProcess(channel)

    def stop(self) -> None:
        """End the server and any process of it that still runs."""
        self._channel.close()
        self._process.stop()


class ForkedProcess:
    """A process that a ForkServer started; the counterpart of `ChildProcess`."""

    def __init__(self, channel: socket.socket) -> None:
        """Wait for its process id."""
        self._channel = channel
        self._lock = threading.Lock()
        self._code: int | None = None
        channel.settimeout(_START_WITHIN_S)
        try:
            answer, descriptors, _, _ = socket.recv_fds(channel, _MOST_BYTES, 1)
            if not descriptors:
                raise ConnectionError("The fork server has ended.")
        except OSError:
            channel.close()
            raise
        self.pid = int(answer)
        self._pidfd = descriptors[0]

    def fileno(self) -> int:
        """A descriptor that becomes readable when it ends."""
        return self._channel.fileno()

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        with self._lock:
            if self._code is None and select.select([self._channel], [], [], 0)[0]:
                # Nothing is received where the server was killed: its processes end with it.
                self._code = int(self._channel.recv(_MOST_BYTES) or -signal.SIGKILL)
                self._channel.close()
                os.close(self._pidfd)
            return self._code

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the exit code; None where it is still running after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while (code := self.exit_code()) is None and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)
        return code

    def stop(self) -> None:
        """Stop it, and kill it if it does not end in time; returns once it has ended."""
        self.send(signal.SIGTERM)
        if self.wait(STOP_WITHIN_S) is None:
            self.kill()

    def kill(self) -> None:
        """Kill it, as in a crash."""
        self.send(signal.SIGKILL)
        self.wait(STOP_WITHIN_S)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with self._lock:
            if self._code is None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, number)


# The server


@dataclass(frozen=True)
class _Order:
    """A process to become: its name, arguments, output and environment."""

    name: str
    command: list[str]
    log: int
    environment: int


def _import(modules: Sequence[str]) -> None:
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception:  # noqa: BLE001 - the program that needs it fails with its own message
            traceback.print_exc()
    # Collections would otherwise write to pages that the processes share.
    gc.collect()
    gc.freeze()


def _serve(channel: socket.socket) -> _Order | None:
    """Fork for each order until the channel closes; in a child, return its order."""
    children: dict[int, socket.socket] = {}
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, _ignore)
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        for number, _ in poll.poll():
            if number == woken.fileno():
                woken.recv(_MOST_BYTES)
                _reap(children)
                continue
            order, descriptors, _, _ = socket.recv_fds(channel, _MOST_BYTES, 3)
            if not order:
                _end(children)
                return None
            status, log, environment = descriptors
            # No signal is lost between the fork and `_become`.
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            pid = os.fork()
            if pid == 0:
                for held in (channel, woken, wake, *children.values()):
                    held.close()
                os.close(status)
                return _Order(**json.loads(order), log=log, environment=environment)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            children[pid] = socket.socket(fileno=status)
            pidfd = os.pidfd_open(pid)
            with suppress(OSError):  # the caller may have ended
                socket.send_fds(children[pid], [str(pid).encode()], [pidfd])
            for one in (pidfd, log, environment):
                os.close(one)


def _ignore(_signal: int, _frame: FrameType | None) -> None:
    """Do nothing. A handler makes the signal wake `poll`, and a child does not inherit it."""


def _reap(children: dict[int, socket.socket]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if pid in children:
            with children.pop(pid) as channel, suppress(OSError):
                channel.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _end(children: dict[int, socket.socket]) -> None:
    """Stop the children that still run; kill those that do not end in time."""
    for pid in children:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _END_WITHIN_S
    while children and time.monotonic() < deadline:
        _reap(children)
        time.sleep(_PAUSE_S)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _become(order: _Order, server: int) -> None:
    """Make this fork the ordered process: its environment, output, session, name and arguments."""
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != server:
        os._exit(1)
    os.setsid()
    os.dup2(order.log, 1)
    os.dup2(order.log, 2)
    os.close(order.log)
    with os.fdopen(order.environment) as environment:
        environment.seek(0)
        variables = json.load(environment)
    os.environ.clear()
    os.environ.update(variables)
    # `top` and `ps -o comm` show it; the kernel keeps 15 characters.
    libc.prctl(_PR_SET_NAME, order.name.encode())
    sys.argv = order.command


def main() -> None:
    """Import the modules of the command line, then serve on the descriptor that it names."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    # The channel closes when the parent ends. Its watcher then also sends SIGTERM.
    signal.signal(signal.SIGTERM, _ignore)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    _import(sys.argv[2:])
    server = os.getpid()
    if (order := _serve(channel)) is not None:
        _become(order, server)
        runpy.run_module(order.command[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
