"""A pytest plugin that fails a test which leaves resources behind.

It compares the process's resources before a test's own fixtures are set up and after they are torn
down: tasks of the event loop, sockets and pipes, child processes, temporary files. Resources of a
fixture with a wider scope are checked at the end of that scope; modules are checked as a whole.

Each run has its own temporary folder, and marks the environment of the processes it starts, so that
`tests/reaper.py` can remove both after the run, even after `kill -9`.
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
from weakref import WeakSet

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from tests import reaper

GRACE_S = float(os.environ.get("AAM_LEFTOVERS_GRACE_S", "10"))
"""How long to wait for remaining resources to end; no wait if nothing remains."""
_UNTIL_COLLECTED_S = 0.1
_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.25

_HAS_PROC = Path("/proc/self/fd").is_dir()

_has_failed = pytest.StashKey[bool]()


@dataclass(frozen=True)
class Held:
    """Resources of this process that their owner must release."""

    tasks: frozenset[asyncio.Task[Any]] = frozenset()
    descriptors: frozenset[tuple[int, str]] = frozenset()
    children: frozenset[int] = frozenset()
    files: frozenset[str] = frozenset()
    sessions: frozenset[aiohttp.ClientSession] = frozenset()
    """Open HTTP client sessions, also those without a connection."""

    @classmethod
    def now(cls) -> Held:
        """Collect those of the session's event loop, this process and the temporary folder."""
        tasks = frozenset(asyncio.all_tasks(_run.loop)) if _run.loop else frozenset()
        with suppress(RuntimeError):
            tasks -= {asyncio.current_task()}
        return cls(
            tasks,
            frozenset(_descriptors()),
            frozenset(_children()),
            frozenset(_files()),
            frozenset(session for session in _sessions if not session.closed),
        )

    def __add__(self, other: Held) -> Held:
        return Held(*(getattr(self, one.name) | getattr(other, one.name) for one in fields(self)))

    def __sub__(self, other: Held) -> Held:
        return Held(*(getattr(self, one.name) - getattr(other, one.name) for one in fields(self)))

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) for one in fields(self))

    def described(self) -> Iterator[str]:
        """Yield a line for each resource."""
        for task in self.tasks:
            yield f"a task: {task!r}"
        for number, link in sorted(self.descriptors):
            yield _described(number, link)
        for pid in sorted(self.children):
            yield f"the process {pid}: {_command(pid)}"
        for name in sorted(self.files):
            yield f"the temporary file {name}"
        for session in self.sessions:
            yield f"an open HTTP session: {session!r}"

    def without_plain_descriptors(self) -> Held:
        """Drop descriptors without a transport: libraries retain some once they are used."""
        transports = _transports()
        kept = frozenset(one for one in self.descriptors if one[0] in transports)
        return replace(self, descriptors=kept)

    def end(self) -> None:
        """End these resources, so that they do not affect later tests."""
        for task in self.tasks:
            task.cancel()
        transports = _transports()
        for number, _ in self.descriptors:
            if (transport := transports.get(number)) is not None:
                transport.abort()
        for pid in self.children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for session in self.sessions:
            session.detach()


_sessions: WeakSet[aiohttp.ClientSession] = WeakSet()
_make_session = aiohttp.ClientSession.__init__


def _note_session(self: aiohttp.ClientSession, *given: Any, **options: Any) -> None:
    _make_session(self, *given, **options)
    _sessions.add(self)


class _Run:
    """The resources of this process's run: its event loop, mark, folder and reaper."""

    loop: asyncio.AbstractEventLoop | None = None
    known = Held()
    """Resources of fixtures that outlive a test, and reported ones; only grows."""
    reported = Held()
    modules_at_work: ClassVar[set[str]] = set()
    """Module-scoped fixtures that are now active beside the tests."""

    def __init__(self) -> None:
        self.mark = f"{os.environ.get(reaper.VARIABLE, '')}{secrets.token_hex(4)}/"
        self.folder = Path(tempfile.mkdtemp(prefix="aam-tests-"))
        self.folder.chmod(0o711)  # traversable for the user that Postgres runs as
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
        """End the reaper's input and wait until it has cleaned up."""
        for name, value in self._before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        tempfile.tempdir = None
        self._leash.close()
        self._reaper.wait(2 * reaper.PATIENCE_S)


_run: _Run


def pytest_configure() -> None:
    """Create the run's folder and mark."""
    global _run  # noqa: PLW0603 (one run per process, and hooks are functions)
    _run = _Run()
    aiohttp.ClientSession.__init__ = _note_session  # type: ignore[method-assign]


def pytest_unconfigure() -> None:
    """Clean up after the run."""
    aiohttp.ClientSession.__init__ = _make_session  # type: ignore[method-assign]
    _run.end()


def share(connections: Iterable[asyncpg.Connection[asyncpg.Record]]) -> None:
    """Accept connections that outlive the test until `tests/pools.py` closes them."""
    numbers = {_socket_of(one).fileno() for one in connections}
    _run.known += Held(descriptors=frozenset(one for one in _descriptors() if one[0] in numbers))


def _socket_of(connection: asyncpg.Connection[asyncpg.Record]) -> socket.socket:
    found: socket.socket = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
    return found


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
    """Attribute the resources of a wider-scoped fixture to its scope, not to the first test."""
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
    """Mark a module-scoped fixture as no longer active."""
    if fixturedef.scope == "module":
        _run.modules_at_work.discard(fixturedef.argname)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember failed tests: resources that they leave behind are not reported as an error."""
    report = yield
    if not report.passed:
        item.stash[_has_failed] = True
    return report


@pytest_asyncio.fixture(autouse=True, scope="session", loop_scope="session")
async def a_run_leaves_nothing(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Check at the end of the run the resources that its tests shared."""
    _run.loop = asyncio.get_running_loop()
    before = Held.now()
    yield
    left = (await _left_since(before, _run.reported)).without_plain_descriptors()
    if request.session.shouldfail or request.session.shouldstop:
        left.end()  # this teardown runs after the last test's report
        return
    await _refuse(left, "This run")


@pytest_asyncio.fixture(autouse=True, scope="module", loop_scope="session")
async def a_module_leaves_nothing(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Check at the end of the module the resources that outlived its tests."""
    before, orphans = Held.now(), _orphans()
    yield
    left = await _left_since(before, _run.known)
    left += Held(children=_orphans() - orphans)
    if request.session.shouldfail or request.session.shouldstop:
        left.end()  # this teardown runs after the last test's report
        return
    await _refuse(left, "This module")


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def a_test_leaves_nothing(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Check each test; as a plugin's autouse fixture, this is set up first and torn down last."""
    before = Held.now()
    yield
    if not (Held.now() - before):
        return
    # Otherwise remaining resources are checked at the end of the run or of the module.
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
    """Whether the fixture is active beside the tests on their event loop and may open resources."""
    ours = (a_run_leaves_nothing.__name__, a_module_leaves_nothing.__name__, "pools")
    function = inspect.unwrap(fixturedef.func)
    return fixturedef.argname not in ours and inspect.isasyncgenfunction(function)


def _uses_what_the_run_shares(item: pytest.Item) -> bool:
    fixtures = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    shared = ("session", "package")
    return any(one[-1].scope in shared and _is_at_work(one[-1]) for one in fixtures.values())


async def _left_since(before: Held, known: Held) -> Held:
    """Return what is still open after the grace period and a garbage collection."""
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
    """Drop the connections that servers in `by` have accepted meanwhile.

    Servers of the module or of the run have clients in other processes, which may connect any time.
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
    """Yield the addresses of the servers among open descriptors."""
    for number, link in descriptors:
        if link.startswith("socket:"):
            with suppress(OSError), socket.socket(fileno=os.dup(number)) as one:
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    yield one.getsockname()


def _accepted_at(task: asyncio.Task[Any]) -> Any:
    """Return the address of the server whose connection an asyncio or aiohttp task handles."""
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
    """Yield sockets, pipes and the like; unclosed plain files emit warnings themselves."""
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
    """Return the run's processes that no longer descend from this one."""
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
    """Yield the run's temporary files, except for pytest's own folders."""
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
