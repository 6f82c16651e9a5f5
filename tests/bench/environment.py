"""The benchmark environment: a dedicated registry, and each server in a separate process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from local.processes import servers
from local.processes.exit_with_parent import ChildProcess
from tests import access

REPOSITORY = Path(__file__).parents[2]
_START_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A migrated registry, a minimal Airbyte server, and the servers started on top of them."""

    folder: Path
    registry_url: str
    """Registry URL of the owner role; servers started by `serve` use the services' role."""
    services_url: str
    """Registry URL of the services' role."""
    airbyte_url: str
    airbyte: ChildProcess
    postgres: servers.Postgres
    valkey: servers.Valkey
    environment: dict[str, str]
    _open: ExitStack

    def serve(self, app: str) -> int:
        """Start an ASGI application as `make up` does, wait until it listens, return its port."""
        port = servers.free_port()
        command = ["uvicorn", app, "--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
        command += ["--http", "shared.http.uvicorn_protocol:Http"]
        command += ["--timeout-keep-alive", "60"]  # keep idle connections open between rounds
        self._open.enter_context(
            _running(command, port, log=self.folder / f"{app}.log", environment=self.environment)
        )
        return port


@contextmanager
def stage(
    *,
    postgres_options: Mapping[str, str] | None = None,
    airbyte: Callable[[int], Sequence[str]] = lambda port: [
        "tests.bench.airbyte_server",
        str(port),
    ],
) -> Iterator[Stage]:
    """Set up a `Stage`; its processes and files are removed afterwards.

    `postgres_options` are added to THROWAWAY_OPTIONS. `airbyte` returns the arguments of
    `python -m` that serve Airbyte's API at a port.
    """
    with ExitStack() as open_:
        folder = servers.temporary_dir()
        open_.callback(servers.remove, folder)
        postgres = open_.enter_context(
            servers.start_postgres(
                folder / "postgres",
                options={**servers.THROWAWAY_OPTIONS, **(postgres_options or {})},
            )
        )
        open_.callback(servers.remove, folder / "postgres")
        valkey = open_.enter_context(servers.start_valkey(folder / "valkey"))
        port = servers.free_port()
        url = f"http://127.0.0.1:{port}/api/v1"
        environment = os.environ | {
            "SUPABASE_DB_URL": postgres.services_url,
            "MIGRATION_DB_URL": postgres.url,
            "REDIS_URL": valkey.url,
            "AIRBYTE_API_URL": url,
            **access.environment(),
        }
        subprocess.run(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            check=True,
            cwd=REPOSITORY,
            env=environment,
            timeout=60,
        )
        access.let_in(postgres.url)
        process = open_.enter_context(
            _running(list(airbyte(port)), port, log=folder / "airbyte.log", environment=environment)
        )
        yield Stage(
            folder,
            postgres.url,
            postgres.services_url,
            url,
            process,
            postgres,
            valkey,
            environment,
            open_,
        )


@contextmanager
def _running(
    command: list[str], port: int, *, log: Path, environment: dict[str, str]
) -> Iterator[ChildProcess]:
    with log.open("wb") as out:
        process = ChildProcess(
            [sys.executable, "-m", *command], log=out, env=environment, cwd=REPOSITORY
        )
        try:
            deadline = time.monotonic() + _START_TIMEOUT_S
            while not servers.is_taken(port):
                if process.exit_code() is not None or time.monotonic() > deadline:
                    raise servers.ServerFailed(f"{command[0]} did not start:\n{log.read_text()}")
                time.sleep(0.05)
            yield process
        finally:
            process.stop()


class Http:
    """A minimal HTTP/1.1 client on one keep-alive connection, with negligible overhead."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authorization: str
    ) -> None:
        self._reader, self._writer = reader, writer
        self._authorization = authorization

    @classmethod
    async def to(cls, port: int, *, authorization: str = access.HEADERS["Authorization"]) -> Http:
        """Open a connection to a port of this machine."""
        opened = await asyncio.open_connection("127.0.0.1", port, limit=4 * 1024 * 1024)
        return cls(*opened, authorization)

    async def request(self, path: str, body: bytes | None = None, *, expected: int = 200) -> bytes:
        """Send a GET, or a POST when there is a JSON body, and return the response body.

        Raises:
            AssertionError: The response status is not `expected`.
        """
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nhost: bench\r\n"
        head += f"authorization: {self._authorization}\r\n"
        if body is not None:
            head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self._writer.write(head.encode() + b"\r\n")
        if body is not None:
            self._writer.write(body)
        async with asyncio.timeout(30):
            await self._writer.drain()
            head_received = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head_received.partition(b"content-length:")[2].split(b"\r\n")[0])
            content = await self._reader.readexactly(length)
        if b" %d " % expected not in head_received[:16]:
            raise AssertionError(f"{path} returned {head_received[9:12]!r}: {content[:500]!r}")
        return content

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


async def timed_ms(http: Http, path: str, body: bytes | None = None) -> float:
    """Return the latency of one request in milliseconds."""
    start = time.perf_counter()
    await http.request(path, body)
    return (time.perf_counter() - start) * 1000
