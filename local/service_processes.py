"""AAM's own programs as servers: started by a command, ready when they answer."""

from __future__ import annotations

import asyncio
import http.client
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from local.processes.exit_with_parent import ChildProcess
from local.processes.fork_server import ForkedProcess, ForkServer
from local.processes.servers import Server, ServerFailed

ROOT = Path(__file__).resolve().parent.parent


class Program(Server):
    """One of AAM's own processes, ready when its path `ready` answers 200."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        port: int,
        ready: str,
        env: Mapping[str, str],
        log: Path,
        docs: str = "",
        fork_server: ForkServer | None = None,
    ) -> None:
        """Create it without starting it.

        Its first start is by `fork_server`. A restart imports everything anew, so that it runs the
        files as they are then.
        """
        super().__init__(port=port, log=log)
        self.name = name
        self.docs_url = f"{self.url}{docs}" if docs else ""
        self._command = command
        self._ready = ready
        self._env = env
        self._fork_server = fork_server

    @property
    def url(self) -> str:
        """The address it listens on."""
        return f"http://127.0.0.1:{self.port}"

    def _spawn(self, log: IO[bytes]) -> ChildProcess | ForkedProcess:
        fork_server, self._fork_server = self._fork_server, None
        if fork_server is not None:
            try:
                return fork_server.spawn(self.name, self._command, log=log, env=self._env)
            except OSError as error:
                raise ServerFailed(f"{self.name} could not be forked: {error}") from error
        return ChildProcess(
            [sys.executable, "-m", *self._command], log=log, env=self._env, cwd=ROOT
        )

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=4)
        try:
            connection.request("GET", self._ready)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


async def wait_for_exit(process: Server | ChildProcess | ForkedProcess) -> int:
    while (code := process.exit_code()) is None:  # noqa: ASYNC110 (it has a code, no event)
        await asyncio.sleep(0.1)
    return code
