"""Further consoles beside a mesh's own, with settings of their own; and a proxy before two."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from local.mesh_client import Mesh
from local.processes import servers
from local.service_processes import Program

_CHUNK = 65536


@asynccontextmanager
async def another_console(mesh: Mesh, log: Path, **settings: str) -> AsyncIterator[str]:
    """Run one more console before the same services; yields its address.

    Its sessions are those of the mesh's console. `settings` are environment variables.
    """
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    environment = mesh.stack.environments.console() | {"CONSOLE_URL": url} | settings
    program = Program(
        f"console at {port}",
        [
            *("uvicorn", "services.console.main:app", "--host", "127.0.0.1", "--port", str(port)),
            *("--http", "shared.http.uvicorn_protocol:Http", "--ws", "none", "--no-access-log"),
        ],
        port=port,
        ready="/health",
        log=log,
        env=environment | {"METRICS_PORT": str(servers.free_port())},
    )
    await asyncio.to_thread(program.start)
    try:
        yield url
    finally:
        await asyncio.to_thread(program.stop)


class RoundRobin:
    """A proxy that gives each request to the next of several servers."""

    def __init__(self) -> None:
        self.port = servers.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.requests: Counter[int] = Counter()
        """The number of requests that each server got, by port."""
        self._turns: itertools.cycle[int] = itertools.cycle(())
        self._forwarding: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def before(self, urls: Sequence[str]) -> AsyncIterator[None]:
        """Serve these."""
        self._turns = itertools.cycle([urlsplit(url).port or 80 for url in urls])
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        try:
            yield
        finally:
            server.close()
            # A page's live updates would stay open.
            for task in self._forwarding:
                task.cancel()
            await asyncio.gather(*self._forwarding, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one request; then close, so that the browser's next one has another turn."""
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            port = next(self._turns)
            self.requests[port] += 1
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                up_writer.write(head.replace(b"Connection: keep-alive", b"Connection: close"))
                up_writer.write(await reader.readexactly(_body_bytes(head)))
                await up_writer.drain()
                while data := await up_reader.read(_CHUNK):
                    writer.write(data)
                    await writer.drain()
            finally:
                up_writer.close()
                writer.close()


def _body_bytes(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
