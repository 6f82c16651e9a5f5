"""Runs a connector process and reads Airbyte Protocol messages from it, one JSON object per line.

Configurations are passed through anonymous memory (memfd), never in arguments or files. Where the
system has no memfd, they are 0600 files in a 0700 directory, removed after the run and swept at
start. Standard error may contain secrets: it only goes to the job's log, which masks them.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from local.airbyte.job_logs import JobLog
from local.airbyte.settings import Limits
from shared.observability import logs

log = logs.get(__name__)

CHUNK_BYTES = 256 * 1024
LONGEST_LINE_BYTES = 512 * 1024 * 1024
GRACE_SECONDS = 5.0
LAUNCHER = Path(__file__).parent / "connector_exec.py"
PASSED_ON = ("LANG", "LC_ALL", "TZ", "TMPDIR")
HAS_MEMFD = sys.platform == "linux"

Message = dict[str, Any]


class ConnectorFailed(Exception):
    """The connector failed. The message is the plane's own, `external` is the connector's."""

    def __init__(
        self,
        message: str,
        *,
        kind: str = "system_error",
        external: str | None = None,
        internal: str | None = None,
        stream: Mapping[str, Any] | None = None,
        from_trace: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.external = external or message
        self.internal = internal
        self.stream = stream
        self.from_trace = from_trace


@dataclass
class Process:
    """A running connector: iterate its lines, then get its exit code."""

    process: asyncio.subprocess.Process
    limits: Limits
    deadline: float
    log: JobLog | None = None
    """Receives the connector's logs; None for `spec`, which runs without secrets."""

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield every line of standard output, of any length.

        Raises:
            ConnectorFailed: no output for longer than `idle`, or running for longer than `total`.
        """
        reader = self.process.stdout
        assert reader is not None  # noqa: S101 - started with a pipe
        parts: list[bytes] = []
        size = 0
        while chunk := await self._read(reader):
            head, newline, rest = chunk.partition(b"\n")
            parts.append(head)
            size += len(head)
            if size > LONGEST_LINE_BYTES:
                raise ConnectorFailed(
                    f"The connector wrote a line over {LONGEST_LINE_BYTES} bytes."
                )
            if not newline:
                continue
            yield b"".join(parts)
            *whole, last = rest.split(b"\n")
            for line in whole:
                yield line
            parts, size = [last], len(last)
        if any(parts):
            yield b"".join(parts)

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        left = self.deadline - _now()
        idle = self.limits.idle.total_seconds()
        try:
            return await asyncio.wait_for(reader.read(CHUNK_BYTES), min(idle, left))
        except TimeoutError as error:
            if left <= idle:
                total = self.limits.total.total_seconds()
                message = f"The connector was not done after {total:g} s."
            else:
                message = f"The connector wrote nothing for {idle:g} s."
            raise ConnectorFailed(message, kind="heartbeat_timeout") from error

    async def exit_code(self) -> int:
        """Return the exit code; a process that closed its output gets the grace period to exit."""
        try:
            return await asyncio.wait_for(self.process.wait(), GRACE_SECONDS)
        except TimeoutError:
            await self.kill()
            return self.process.returncode or -signal.SIGKILL

    async def kill(self) -> None:
        """End the whole process group, with SIGTERM first."""
        for each in (signal.SIGTERM, signal.SIGKILL):
            if self.process.returncode is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, each)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), GRACE_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # and the connector's own children


@dataclass(frozen=True)
class Runner:
    """Starts connectors, a few at a time; `directory` has their files on systems without memfd."""

    directory: Path
    slots: asyncio.Semaphore

    @asynccontextmanager
    async def run(
        self,
        executable: Path,
        verb: str,
        *,
        documents: Mapping[str, Any],
        limits: Limits,
        extra_env: Mapping[str, str],
        log: JobLog | None = None,
    ) -> AsyncIterator[Process]:
        """Run the connector with `verb`; its process never outlives the block.

        `documents` are its arguments, `{"config": ...}` as JSON values or as JSON bytes.
        """
        async with self.slots:
            with contextlib.ExitStack() as given:
                arguments, descriptors = self._pass_documents(given, documents)
                command = [str(executable), verb, *arguments]
                process = await self._start(command, descriptors, executable, extra_env)
                deadline = _now() + limits.total.total_seconds()
                running = Process(process, limits, deadline, log)
                drain = asyncio.create_task(_drain(running))
                given.callback(self._write_pid_file(process.pid, executable))
                try:
                    yield running
                finally:
                    await asyncio.shield(running.kill())
                    drain.cancel()

    async def _start(
        self,
        command: Sequence[str],
        descriptors: Sequence[int],
        executable: Path,
        extra_env: Mapping[str, str],
    ) -> asyncio.subprocess.Process:
        home = self.directory / "home"
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            str(LAUNCHER),
            str(os.getpid()),
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=CHUNK_BYTES,
            env={
                "PATH": f"{executable.parent}:/usr/local/bin:/usr/bin:/bin",
                "HOME": str(home.resolve()),
                **passed,
                **extra_env,
            },
            cwd=home,
            pass_fds=descriptors,
            start_new_session=True,
        )

    def _pass_documents(
        self, given: contextlib.ExitStack, documents: Mapping[str, Any]
    ) -> tuple[list[str], list[int]]:
        """Return arguments and descriptors that pass `documents`; `given` releases them."""
        arguments: list[str] = []
        descriptors: list[int] = []
        for name, value in documents.items():
            content = value if isinstance(value, bytes) else orjson.dumps(value)
            if HAS_MEMFD:
                file = given.enter_context(os.fdopen(os.memfd_create(name), "wb", buffering=0))
                descriptors.append(file.fileno())
                path = f"/proc/self/fd/{file.fileno()}"
            else:
                path = str(self.directory / f"{os.urandom(8).hex()}.json")
                file = os.fdopen(
                    os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", 0
                )
                given.enter_context(file)
                given.callback(Path(path).unlink, missing_ok=True)
            _write_all(file, content)
            arguments += [f"--{name}", path]
        return arguments, descriptors

    def _write_pid_file(self, pid: int, executable: Path) -> Callable[[], None]:
        if HAS_MEMFD:  # on Linux the kernel kills the connector when this process exits
            return lambda: None
        path = self.directory / f"{pid}.pid"
        path.write_text(str(executable))
        return path.unlink

    def sweep(self) -> None:
        """Kill connectors and delete files that a killed plane left. Call before the first run."""
        for path in self.directory.glob("*.pid"):
            if _command_line(int(path.stem)).find(path.read_text()) >= 0:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(int(path.stem), signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True, mode=0o700)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _write_all(file: io.RawIOBase, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def _command_line(pid: int) -> str:
    command = ["/bin/ps", "-o", "command=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=5).stdout  # noqa: S603 - the only variable argument is a number


async def _drain(running: Process) -> None:
    reader = running.process.stderr
    assert reader is not None  # noqa: S101 - started with a pipe
    while chunk := await reader.read(CHUNK_BYTES):
        if running.log is not None:
            running.log.errors(chunk)


def parse(line: bytes) -> Message | None:
    """Parse a line as a protocol message; None if it is anything else."""
    try:
        message = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return message if isinstance(message, dict) and isinstance(message.get("type"), str) else None


def failure(trace: Mapping[str, Any]) -> ConnectorFailed:
    """Convert an error TRACE to an exception."""
    error = trace.get("error") or {}
    return ConnectorFailed(
        "The connector reported an error.",
        kind=error.get("failure_type") or "system_error",
        external=error.get("message"),
        internal=error.get("internal_message"),
        stream=error.get("stream_descriptor"),
        from_trace=True,
    )
