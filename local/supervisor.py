"""The whole mesh on one machine: servers, migrations, Airbyte, samples, services, console.

Each is a separate process with only the environment it needs, and logs to `logs/` in the state
folder. A process that ends is reported and restarted; none outlives the stack, however that ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO, Self, TypeVar

from local import env_files, log_rotation, request_guard
from local.airbyte.connector_store import Store
from local.airbyte.manifests import load_all
from local.environment import (
    SALESFORCE,
    Environments,
    given_environment,
    inherited,
    names_salesforce,
)
from local.processes import fork_server, servers
from local.processes.exit_with_parent import GRACE_S, ChildProcess
from local.processes.fork_server import ForkedProcess, ForkServer
from local.processes.servers import CONSOLE, SERVICES, Server, ServerFailed
from local.service_processes import ROOT, Program, wait_for_exit
from local.settings import Settings

_REPLICA_PORTS_APART = 100
_LONGEST_BACK_OFF_S = 30.0
_HEALTHY_AFTER_S = 60.0
_LOGS_EVERY_S = 1.0
SHARED_MODULES = (
    *(f"services.{name}.main" for name in (*SERVICES, CONSOLE) if name != "rag_engine"),
    *("uvicorn.protocols.http.httptools_impl", "uvloop", "alembic.command", "psycopg2"),
    *("local.airbyte.server", "local.sample_org.server"),
)
"""What most processes of the mesh import. Only the rag_engine needs NumPy, which starts threads."""

T = TypeVar("T")


class Refused(Exception):
    """The stack cannot start in this environment; the message gives the reason."""


class Stack:
    """All processes of a mesh; `async with Stack(settings)` runs it."""

    postgres: servers.Postgres
    valkey: servers.Valkey
    environments: Environments

    def __init__(
        self,
        settings: Settings,
        *,
        environment: Mapping[str, str] | None = None,
        postgres_options: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """Create the stack without starting it.

        `environment` is what the processes inherit from; None means this process's environment and
        `.env`. `say` is called with messages for the user while the stack runs.
        """
        self.settings = settings
        self._environment = environment if environment is not None else given_environment()
        self._postgres_options = postgres_options
        self._say = say
        self._state = settings.state_dir.resolve()
        self._logs = self._state / "logs"
        self._lock: IO[str] | None = None
        self._started: list[Sequence[Server]] = []
        self._watching: list[asyncio.Task[None]] = []
        self._fork_server: ForkServer | None = None
        self._threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="stack")

    @property
    def uses_sample_org(self) -> bool:
        """Whether Salesforce is the sample org: no credentials of a real one are set."""
        return not names_salesforce(self._environment)

    @property
    def processes(self) -> Sequence[Server]:
        """The running processes, in the order of their start."""
        return [server for group in self._started for server in group]

    def url_of(self, name: str) -> str:
        """The address of a service, `airbyte` or `sample_org`."""
        return self.settings.url_of(name)

    @property
    def auth_file(self) -> Path:
        """The first API key, as a header for `curl -H @<file>`."""
        return self._state / "auth"

    def auth_file_of(self, name: str) -> Path:
        """The login for a service, `airbyte` or `sample_org`, as a header in a file."""
        return self.auth_file if name in SERVICES else request_guard.token_file(self._state / name)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def claim(self) -> None:
        """Lock the state folder and check the ports, before anything is started.

        Raises:
            Refused: another stack has this state folder, or a port is taken.
        """
        crashed = self._take_state()
        await self._require_free_ports(patience_s=GRACE_S + 1 if crashed else 0)

    async def start(self) -> None:
        """Start all processes and wait until each is ready; if it fails, call `stop` to clean up.

        Raises:
            Refused: another stack has this state folder, or a port is taken. Nothing was started.
            InvalidManifest, InstallFailed: a manifest cannot be run. Nothing was started.
            ServerFailed: a process did not start.
        """
        if self._lock is None:
            await self.claim()
        # Before the servers, whose start has a deadline; they find the result.
        store = Store(self.settings.connectors_dir)
        await self._in_thread(partial(load_all, store, self.settings.manifest_paths))
        self._logs.mkdir(exist_ok=True)
        self._logs.chmod(0o700)
        self.postgres = servers.Postgres(
            self._state / "postgres",
            port=self.settings.postgres_port,
            log=self._logs / "postgres.log",
            options=self._postgres_options,
        )
        self.valkey = servers.Valkey(
            self._state / "valkey",
            port=self.settings.valkey_port,
            log=self._logs / "valkey.log",
        )
        self.environments = Environments(
            self.settings, self._environment, self._state, self.postgres, self.valkey
        )
        self._watching.append(asyncio.create_task(self._rotate_logs()))
        if fork_server.is_available():
            with servers.private_log(self._logs / "fork_server.log") as log:
                self._fork_server = ForkServer(
                    SHARED_MODULES, log=log, env=inherited(self._environment), cwd=ROOT
                )
        await self._start(self.postgres, self.valkey)
        migrating = asyncio.create_task(self._migrate())
        try:
            await self._start(*self._execution_plane())
            await migrating
        finally:
            migrating.cancel()
        await self._run("access", self._access_setup())
        await self._start(*self._services())
        self._write_env_files()
        self._watching += [
            asyncio.create_task(self._restart_on_exit(one)) for one in self.processes
        ]

    async def stop(self) -> None:
        """Stop all processes, newest first."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        self._watching.clear()
        while self._started:
            await asyncio.gather(*(self._in_thread(one.stop) for one in self._started.pop()))
        if self._fork_server is not None:
            await self._in_thread(self._fork_server.stop)
            self._fork_server = None
        self._threads.shutdown()
        if self._lock is not None:
            for name in ("env", "env.owner"):
                (self._state / name).unlink(missing_ok=True)
            self._lock.truncate(0)
            self._lock.close()
            self._lock = None

    def _take_state(self) -> bool:
        """Lock the state folder; returns whether the previous stack ended without cleaning up."""
        self._state.mkdir(parents=True, exist_ok=True)
        self._lock = lock_state(self._state)
        holder = self._lock.read()
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()
        return bool(holder)

    def _ports(self) -> list[tuple[int, str]]:
        """The ports of this stack, without duplicates, with the variable that sets each."""
        unused = [] if self.uses_sample_org else ["sample_org_port", "sample_org_proxy_port"]
        if not self.settings.sample_api:
            unused.append("sample_api_port")
        wanted = [
            (getattr(self.settings, name), f"AAM_{name.upper()}")
            for name in self.settings.port_names()
            if name not in unused
        ]
        wanted += [
            (self._port_of(name, replica), f"AAM_{name.upper()}_PORT")
            for replica in range(2, self.settings.replicas + 1)
            for service in (*SERVICES, CONSOLE)
            for name in (service, f"{service}_metrics")
        ]
        owners: dict[int, str] = {}
        for port, variable in wanted:
            owner = owners.setdefault(port, variable)
            if owner != variable:
                raise Refused(f"{owner} and {variable} are both {port}.")
        return wanted

    def _port_of(self, service: str, replica: int) -> int:
        first: int = getattr(self.settings, f"{service}_port")
        return first + (replica - 1) * _REPLICA_PORTS_APART

    async def _require_free_ports(self, *, patience_s: float) -> None:
        """Wait up to `patience_s` for the ports of a crashed stack to become free."""
        ports = self._ports()
        deadline = time.monotonic() + patience_s
        while taken := [(port, name) for port, name in ports if servers.is_taken(port)]:
            if time.monotonic() > deadline:
                raise Refused(
                    "\n".join(
                        f"Port {port} is taken: set {name} to a free one." for port, name in taken
                    )
                )
            await asyncio.sleep(0.1)

    def _in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _start(self, *group: Server) -> None:
        self._started.append(group)
        await self._start_all(group)

    async def _start_all(self, group: Sequence[Server]) -> None:
        """Start servers concurrently; if one fails, or this is cancelled, all are killed."""
        starts = [self._in_thread(server.start) for server in group]
        try:
            done, _ = await asyncio.wait(starts, return_when=asyncio.FIRST_EXCEPTION)
            for start in done:
                start.result()
        except BaseException:
            waiting = set(starts)
            while waiting:
                for server in group:
                    server.kill()
                _, waiting = await asyncio.wait(waiting, timeout=0.1)
            for start in starts:
                start.exception()
            raise

    async def _migrate(self) -> None:
        await self._run("migrate", ["alembic", "upgrade", "head"], beside=self.environments.owner)

    def _access_setup(self) -> list[str]:
        """The command that creates the missing signing keys and the first API key."""
        keys = self._state / "keys"
        return [
            *("services.orchestrator.manage_api_keys", "set-up"),
            *("--private", str(keys), "--public", str(keys / "public")),
            *("--first-key", str(self.auth_file)),
        ]

    async def _run(
        self, name: str, command: Sequence[str], *, beside: Mapping[str, str] | None = None
    ) -> None:
        """Run one of AAM's commands to its end, with the orchestrator's environment and `beside`.

        Raises:
            ServerFailed: it failed; the message names its log.
        """
        log = self._logs / f"{name}.log"
        env = self.environments.service("orchestrator") | dict(beside or {})
        with servers.private_log(log) as output:
            process = await self._in_thread(partial(self._spawn, name, command, output, env))
        try:
            code = await wait_for_exit(process)
        finally:
            process.kill()
        if code:
            raise ServerFailed(f"{name} ended with {code}; its log: {log}")

    def _spawn(
        self, name: str, command: Sequence[str], log: IO[bytes], env: Mapping[str, str]
    ) -> ChildProcess | ForkedProcess:
        if self._fork_server is not None:
            return self._fork_server.spawn(name, command, log=log, env=env)
        return ChildProcess([sys.executable, "-m", *command], log=log, env=env, cwd=ROOT)

    async def _restart_on_exit(self, server: Server) -> None:
        """Restart a process whenever it ends, with exponential back-off."""
        pause_s, since = 0.5, time.monotonic()
        while True:
            code = await wait_for_exit(server)
            if time.monotonic() - since > _HEALTHY_AFTER_S:
                pause_s = 0.5
            self._say(
                f"{server.name} ended with {code} (its log: {server.log}); "
                f"starting it again in {pause_s:g} s."
            )
            is_back = False
            while not is_back:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_BACK_OFF_S)
                try:
                    await self._start_all([server])
                except ServerFailed as error:
                    self._say(f"{error}; trying again in {pause_s:g} s.")
                else:
                    is_back = True
            since = time.monotonic()
            self._say(f"{server.name} is running again (pid {server.pid}).")

    async def _rotate_logs(self) -> None:
        """Rotate the logs while the stack runs."""
        bounds = {"most_bytes": self.settings.log_max_bytes, "keep": self.settings.log_keep}
        while True:
            await self._in_thread(partial(log_rotation.rotate_all, self._logs, **bounds))
            await asyncio.sleep(_LOGS_EVERY_S)

    def _execution_plane(self) -> list[Server]:
        """The local Airbyte, and the samples that run."""
        plane = [
            self._program(
                "airbyte",
                ["local.airbyte"],
                ready="/api/v1/health",
                env=self.environments.airbyte(job_logs=self._logs / "jobs"),
            )
        ]
        if self.uses_sample_org:
            plane.append(
                self._program(
                    "sample_org",
                    ["local.sample_org", "serve"],
                    docs="/docs",
                    env=self.environments.sample_org(),
                )
            )
        if self.settings.sample_api:
            plane.append(
                self._program(
                    "sample_api", ["local.sample_api"], env=self.environments.sample_api()
                )
            )
        return list(plane)

    def _program(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        ready: str = "/health",
        docs: str = "",
        port: int | None = None,
    ) -> Program:
        return Program(
            name,
            command,
            port=port or getattr(self.settings, f"{name}_port"),
            ready=ready,
            env=env,
            log=self._logs / f"{name}.log",
            docs=docs,
            fork_server=self._fork_server,
        )

    def _services(self) -> list[Server]:
        """Every replica of every service and of the console; others call the first one."""
        return [
            self._service(name, replica)
            for replica in range(1, self.settings.replicas + 1)
            for name in (*SERVICES, CONSOLE)
        ]

    def _service(self, name: str, replica: int) -> Program:
        port = self._port_of(name, replica)
        suffix = "" if replica == 1 else f"-{replica}"
        own = self.environments.console() if name == CONSOLE else self.environments.service(name)
        return self._program(
            f"{name}{suffix}",
            [
                *("uvicorn", f"services.{name}.main:app"),
                *("--host", "127.0.0.1", "--port", str(port)),
                *("--http", "shared.http.uvicorn_protocol:Http", "--ws", "none"),
                *("--limit-concurrency", "1000"),
                *("--no-access-log", "--timeout-graceful-shutdown", "5"),
            ],
            port=port,
            ready="/ready",
            docs="" if name == CONSOLE else "/docs",
            # All callers are on this machine, so a forwarded address would be forgeable.
            env={"FORWARDED_ALLOW_IPS": ""}
            | own
            | {"METRICS_PORT": str(self._port_of(f"{name}_metrics", replica))},
        )

    def _write_env_files(self) -> None:
        """Write the files to source in a shell: `env`, and `env.owner` only for `make migrate`."""
        env_files.write(self._state / "env", self.environments.addresses)
        env_files.write(self._state / "env.owner", self.environments.owner)


@asynccontextmanager
async def temporary_stack(
    *,
    settings: Settings | None = None,
    environment: Mapping[str, str] | None = None,
    keep_logs: Path | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> AsyncIterator[Stack]:
    """A running mesh with its own temporary state folder and ports, deleted at the end.

    It uses the sample org even where a real org's credentials are set. If it ends with an
    exception, its logs are copied to `keep_logs`.
    """
    settings = settings or Settings()
    given = given_environment() if environment is None else environment
    folder = servers.temporary_dir()
    try:
        async with Stack(
            settings.for_another_mesh(folder, servers.free_ports(len(settings.port_names()))),
            environment={k: v for k, v in given.items() if not k.startswith(SALESFORCE)},
            postgres_options=servers.THROWAWAY_OPTIONS,
            say=say,
        ) as stack:
            yield stack
    except BaseException:
        if keep_logs is not None and (folder / "logs").exists():
            shutil.copytree(folder / "logs", keep_logs, dirs_exist_ok=True)
        raise
    finally:
        servers.remove(folder / "postgres")
        shutil.rmtree(folder, ignore_errors=True)


def lock_state(state_dir: Path) -> IO[str]:
    """Lock a state folder until the file is closed; the file contains the holder's pid.

    Raises:
        Refused: another mesh holds it.
    """
    lock = os.open(state_dir / "lock", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    file = os.fdopen(lock, "a+")
    file.seek(0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            raise Refused(
                f"A mesh is already running in {state_dir.resolve()} (pid {file.read()}): stop it, "
                "or name another folder with AAM_STATE_DIR."
            ) from None
    return file
