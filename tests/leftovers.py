"""Every test cleans up after itself: a pytest plugin that fails a test which leaves something.

What the process holds is compared before a test's own fixtures are set up and after they are torn
down: tasks of the event loop, sockets and pipes, child processes, temporary files. What a fixture
of a wider scope starts is its own until the end of that scope; a module is compared as a whole.

A run has a temporary folder of its own, and a mark in the environment of what it starts, so that
`tests/reaper.py` leaves neither when the run has ended, by `kill -9` as well.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import asyncpg
import pytest
import pytest_asyncio

from tests import reaper

GRACE_S = float(os.environ.get("AAM_LEFTOVERS_GRACE_S", "10"))
"""How long what is about to end may take; nothing waits where nothing is left."""
_UNTIL_COLLECTED_S = 0.1
_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.25

_HAS_PROC = Path("/proc/self/fd").is_dir()

_has_failed = pytest.StashKey[bool]()


@dataclass(frozen=True)
class Held:
    """What this process holds that ends with whoever opened it."""

    tasks: frozenset[asyncio.Task[Any]] = frozenset()
    descriptors: frozenset[tuple[int, str]] = frozenset()
    children: frozenset[int] = frozenset()
    files: frozenset[str] = frozenset()

    @classmethod
    def now(cls) -> Held:
        """Of the session's event loop, this process and the run's temporary folder."""
        tasks = frozenset(asyncio.all_tasks(_run.loop)) if _run.loop else frozenset()
        with suppress(RuntimeError):
            tasks -= {asyncio.current_task()}
        return cls(tasks, frozenset(_descriptors()), frozenset(_children()), frozenset(_files()))

    def __add__(self, other: Held) -> Held:
        return Held(*(getattr(self, one.name) | getattr(other, one.name) for one in fields(self)))

    def __sub__(self, other: Held) -> Held:
        return Held(*(getattr(self, one.name) - getattr(other, one.name) for one in fields(self)))

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) for one in fields(self))

    def described(self) -> Iterator[str]:
        """A line for each."""
        for task in self.tasks:
            yield f"a task: {task!r}"
        for number, link in sorted(self.descriptors):
            yield _described(number, link)
        for pid in sorted(self.children):
            yield f"the process {pid}: {_command(pid)}"
        for name in sorted(self.files):
            yield f"the temporary file {name}"

    def without_plain_descriptors(self) -> Held:
        """Libraries keep some for themselves, once they are used."""
        transports = _transports()
        kept = frozenset(one for one in self.descriptors if one[0] in transports)
        return replace(self, descriptors=kept)

    def end(self) -> None:
        """End it, so that no later test meets it."""
        for task in self.tasks:
            task.cancel()
        transports = _transports()
        for number, _ in self.descriptors:
            if (transport := transports.get(number)) is not None:
                transport.abort()
        for pid in self.children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class _Run:
    """What this process's run has: its event loop, its mark, its folder, its reaper."""

    loop: asyncio.AbstractEventLoop | None = None
    known = Held()
    """What fixtures that outlive a test have started, and what was reported; grows only."""
    reported = Held()
    modules_at_work: ClassVar[set[str]] = set()
    """Fixtures of the module that work beside its tests now."""

    def __init__(self) -> None:
        self.mark = f"{os.environ.get(reaper.VARIABLE, '')}{secrets.token_hex(4)}/"
        self.folder = Path(tempfile.mkdtemp(prefix="aam-tests-"))
        self.folder.chmod(0o711)  # the user Postgres runs as passes through
        self._before = {name: os.environ.get(name) for name in (reaper.VARIABLE, "TMPDIR")}
        self._leash, other_end = socket.socketpair()
        with other_end:
            self._reaper = subprocess.Popen(
                [sys.executable, "-I", "-S", reaper.__file__, self.mark, str(self.folder)],
                stdin=other_end.fileno(),
                start_new_session=True,
                env={},
                cwd="/",
            )
        os.environ[reaper.VARIABLE] = self.mark
        os.environ["TMPDIR"] = tempfile.tempdir = str(self.folder)

    @property
    def reaper_pid(self) -> int:
        return self._reaper.pid

    def end(self) -> None:
        """Have the reaper clean up, and wait for it."""
        for name, value in self._before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        tempfile.tempdir = None
        self._leash.close()
        self._reaper.wait(2 * reaper.PATIENCE_S)


_run: _Run


def pytest_configure() -> None:
    """Give the run its folder and its mark."""
    global _run  # noqa: PLW0603 (one run a process, and hooks are functions)
    _run = _Run()


def pytest_unconfigure() -> None:
    """Leave nothing."""
    _run.end()


def share(connections: Iterable[asyncpg.Connection[asyncpg.Record]]) -> None:
    """Say that these are kept for later tests on purpose, until `tests/pools.py` closes them."""
    numbers = {_socket_of(one).fileno() for one in connections}
    _run.known += Held(descriptors=frozenset(one for one in _descriptors() if one[0] in numbers))


def _socket_of(connection: asyncpg.Connection[asyncpg.Record]) -> socket.socket:
    found: socket.socket = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
    return found


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
    """What a fixture of a wider scope starts does not belong to the test that came first."""
    if fixturedef.scope == "function":
        return (yield)
    before = Held.now()
    if _is_at_work(fixturedef) and fixturedef.scope == "module":
        _run.modules_at_work.add(fixturedef.argname)
    try:
        return (yield)
    finally:
        _run.known += Held.now() - before


def pytest_fixture_post_finalizer(fixturedef: pytest.FixtureDef[Any]) -> None:
    """It works no more."""
    if fixturedef.scope == "module":
        _run.modules_at_work.discard(fixturedef.argname)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember which test failed: it may well have left something, and that is not its fault."""
    report = yield
    if not report.passed:
        item.stash[_has_failed] = True
    return report


@pytest_asyncio.fixture(autouse=True, scope="session", loop_scope="session")
async def a_run_leaves_nothing(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """What fixtures of a whole run share with its tests ends with the run."""
    _run.loop = asyncio.get_running_loop()
    before = Held.now()
    yield
    left = (await _left_since(before, _run.reported)).without_plain_descriptors()
    if request.session.shouldfail or request.session.shouldstop:
        left.end()  # it is torn down after the last test's report
        return
    await _refuse(left, "This run")


@pytest_asyncio.fixture(autouse=True, scope="module", loop_scope="session")
async def a_module_leaves_nothing(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """What outlives its tests ends with the module."""
    before, orphans = Held.now(), _orphans()
    yield
    left = await _left_since(before, _run.known)
    left += Held(children=_orphans() - orphans)
    if request.session.shouldfail or request.session.shouldstop:
        left.end()  # it is torn down after the last test's report
        return
    await _refuse(left, "This module")


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def a_test_leaves_nothing(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """A plugin's fixture for every test is set up before its others, and torn down after them."""
    before = Held.now()
    yield
    if not (Held.now() - before):
        return
    # Else what is left is seen at the end of the run, or of the module.
    if _uses_what_the_run_shares(request.node):
        _run.known += Held.now() - before
        return
    if _run.modules_at_work:
        return
    left = await _left_since(before, _run.known)
    if request.node.stash.get(_has_failed, False):
        _run.known += left
        _run.reported += left
        left.end()
        return
    await _refuse(left, "This test")


def _is_at_work(fixturedef: pytest.FixtureDef[Any]) -> bool:
    """Whether it works beside the tests, on their event loop, and may open more meanwhile."""
    ours = (a_run_leaves_nothing.__name__, a_module_leaves_nothing.__name__, "pools")
    function = inspect.unwrap(fixturedef.func)
    return fixturedef.argname not in ours and inspect.isasyncgenfunction(function)


def _uses_what_the_run_shares(item: pytest.Item) -> bool:
    fixtures = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    return any(one[-1].scope == "session" and _is_at_work(one[-1]) for one in fixtures.values())


async def _left_since(before: Held, known: Held) -> Held:
    """What is still held after a while, and after a garbage collection, which warns by itself."""
    loop = asyncio.get_running_loop()
    began, is_collected, pause_s = loop.time(), False, _FIRST_PAUSE_S
    while left := _not_accepted(Held.now() - before - known, by=before + known):
        if loop.time() - began > GRACE_S:
            break
        if not is_collected and loop.time() - began > _UNTIL_COLLECTED_S:
            gc.collect()
            is_collected = True
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    return left


def _not_accepted(held: Held, *, by: Held) -> Held:
    """Without the connections that servers in `by` accepted meanwhile.

    A server of the module or of the run has clients in other processes, which call when they like.
    """
    if not held:
        return held
    servers = set(_listening(by.descriptors & frozenset(_descriptors())))
    transports = _transports()
    return replace(
        held,
        tasks=frozenset(task for task in held.tasks if _accepted_at(task) not in servers),
        descriptors=frozenset(
            one
            for one in held.descriptors
            if (transport := transports.get(one[0])) is None
            or transport.get_extra_info("sockname") not in servers
        ),
    )


def _listening(descriptors: Iterable[tuple[int, str]]) -> Iterator[Any]:
    """The addresses of the servers among open descriptors."""
    for number, link in descriptors:
        if link.startswith("socket:"):
            with suppress(OSError), socket.socket(fileno=os.dup(number)) as one:
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    yield one.getsockname()


def _accepted_at(task: asyncio.Task[Any]) -> Any:
    """The address of the server whose connection a task of asyncio's or aiohttp's handles."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    local = {} if frame is None else frame.f_locals
    if isinstance(connection := local.get("conn"), socket.socket) and connection.fileno() >= 0:
        return connection.getsockname()
    transport = getattr(local.get("self"), "transport", None)
    return None if transport is None else transport.get_extra_info("sockname")


async def _refuse(left: Held, who: str) -> None:
    _run.known += left
    _run.reported += left
    lines = list(left.described())
    left.end()
    await asyncio.sleep(0)
    if lines:
        pytest.fail("\n- ".join([f"{who} left behind:", *lines]), pytrace=False)


def _descriptors() -> Iterator[tuple[int, str]]:
    """Sockets, pipes and their like; plain files warn by themselves."""
    for name in os.listdir("/proc/self/fd") if _HAS_PROC else ():
        with suppress(OSError):
            link = os.readlink(f"/proc/self/fd/{name}")
            if not link.startswith("/"):
                yield int(name), link


def _children() -> Iterator[int]:
    for thread in os.listdir("/proc/self/task") if _HAS_PROC else ():
        with suppress(OSError):
            listed = Path(f"/proc/self/task/{thread}/children").read_text()
            yield from (pid for pid in map(int, listed.split()) if pid != _run.reaper_pid)


def _orphans() -> frozenset[int]:
    """The run's processes that do not descend from this one any more."""
    return frozenset(pid for pid in reaper.marked(_run.mark) if not _descends(pid))


def _descends(pid: int) -> bool:
    while pid > 1 and pid != os.getpid():
        pid = _parent(pid)
    return pid == os.getpid()


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return -1


def _files() -> Iterator[str]:
    """Pytest keeps folders of its own there."""
    names = os.listdir(_run.folder)
    return (name for name in names if not name.startswith("pytest-of-"))


def _transports() -> dict[int, Any]:
    return dict(getattr(_run.loop, "_transports", {}))


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip() or "it has ended"
    return "it has ended"


def _described(number: int, link: str) -> str:
    if (transport := _transports().get(number)) is not None:
        return f"a transport: {transport!r} of {transport.get_protocol()!r}"
    with suppress(OSError), socket.socket(fileno=os.dup(number)) as one:
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return f"a listening socket: {one.getsockname()}"
        with suppress(OSError):
            return f"a socket: {one.getsockname()} to {one.getpeername()}"
        return f"a socket: {one.getsockname()}"
    return f"a file descriptor: {link}"
