"""The whole mesh on one machine: servers, migrations, Airbyte, samples, services, console.

Each is a separate process with only the environment it needs, and logs to `logs/` in the state
folder. A process that ends is reported and restarted; none outlives the stack, however that ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
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

from local import airbyte, env_files, log_rotation, request_guard, sign_in
from local.airbyte.connector_store import Store
from local.airbyte.manifests import load_all
from local.environment import CREDENTIAL_PREFIXES, PREFIXES, WITHHELD, given_environment
from local.processes import fork_server, servers
from local.processes.exit_with_parent import GRACE_S, ChildProcess
from local.processes.fork_server import ForkedProcess, ForkServer
from local.processes.servers import Server, ServerFailed
from local.sample_api.settings import Settings as SampleApi
from local.sample_org.settings import Settings as SampleOrg
from local.service_processes import ROOT, Program, wait_for_exit
from local.settings import Settings

SERVICES = servers.SERVICES
CONSOLE = "console"
CALL_AIRBYTE = frozenset({"orchestrator", "drift_repair_agent", "schema_observer"})
_SALESFORCE = "CREDENTIAL_SALESFORCE_PROD__"
_KEY_ENVIRONMENT = "local"
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
        return not any(
            value for name, value in self._environment.items() if name.startswith(_SALESFORCE)
        )

    @property
    def processes(self) -> Sequence[Server]:
        """The running processes, in the order of their start."""
        return [server for group in self._started for server in group]

    def url_of(self, name: str) -> str:
        """The address of a service, `airbyte` or `sample_org`."""
        return f"http://127.0.0.1:{getattr(self.settings, f'{name}_port')}"

    @property
    def auth_file(self) -> Path:
        """The first API key, as a header for `curl -H @<file>`."""
        return self._state / "auth"

    def auth_file_of(self, name: str) -> Path:
        """The login for a service, `airbyte` or `sample_org`, as a header in a file."""
        return self.auth_file if name in SERVICES else request_guard.token_file(self._state / name)

    @property
    def addresses(self) -> dict[str, str]:
        """The variables for using the mesh from a shell; some contain local passwords."""
        named = {name.upper(): self.url_of(name) for name in (*SERVICES, CONSOLE)}
        named |= {
            f"{name.upper()}_METRICS": f"{self.url_of(f'{name}_metrics')}/metrics"
            for name in (*SERVICES, CONSOLE)
        }
        if self.uses_sample_org:
            named["SAMPLE_ORG"] = self.url_of("sample_org")
        if self.settings.sample_api:
            named["SAMPLE_API"] = self.url_of("sample_api")
        return named | {
            "AIRBYTE_API_URL": f"{self.url_of('airbyte')}/api/v1",
            "AIRBYTE_API_KEY": request_guard.token_of(self._state / "airbyte"),
            "AIRBYTE_WORKSPACE_ID": str(airbyte.WORKSPACE_ID),
            "AIRBYTE_DESTINATION_ID": str(airbyte.DESTINATION_ID),
            "SUPABASE_DB_URL": self._registry_url("orchestrator"),
            "WAREHOUSE_URL": self.postgres.warehouse_url,
            "REDIS_URL": self.valkey.url,
            "KEY_ENVIRONMENT": _KEY_ENVIRONMENT,
        }

    @property
    def _owner(self) -> dict[str, str]:
        """The registry's URL as the owner of its tables, used only for migrations."""
        return {"MIGRATION_DB_URL": f"{self.postgres.url}?sslmode=disable"}

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
        self._watching.append(asyncio.create_task(self._rotate_logs()))
        if fork_server.is_available():
            with servers.private_log(self._logs / "fork_server.log") as log:
                self._fork_server = ForkServer(
                    SHARED_MODULES, log=log, env=self._inherited(), cwd=ROOT
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
        await self._run("migrate", ["alembic", "upgrade", "head"], beside=self._owner)

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
        env = self._service_environment("orchestrator") | dict(beside or {})
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
        org = SampleOrg()
        org_dir = self._state / "sample_org"
        connector_env = {
            "HTTPS_PROXY": f"http://127.0.0.1:{self.settings.sample_org_proxy_port}",
            "REQUESTS_CA_BUNDLE": str(org_dir / "ca.pem"),
        }
        plane: list[Server] = [
            Program(
                "airbyte",
                ["local.airbyte"],
                port=self.settings.airbyte_port,
                ready="/api/v1/health",
                fork_server=self._fork_server,
                log=self._logs / "airbyte.log",
                env=self._inherited("LOCAL_AIRBYTE_")
                | {
                    "LOCAL_AIRBYTE_PORT": str(self.settings.airbyte_port),
                    "LOCAL_AIRBYTE_STATE_DIR": str(self._state / "airbyte"),
                    "LOCAL_AIRBYTE_JOB_LOGS_DIR": str(self._logs / "jobs"),
                    "LOCAL_AIRBYTE_CONNECTORS_DIR": str(self.settings.connectors_dir.resolve()),
                    "LOCAL_AIRBYTE_CONNECTORS": json.dumps(self.settings.connectors.split()),
                    "LOCAL_AIRBYTE_MANIFESTS": json.dumps(
                        [str(path) for path in self.settings.manifest_paths]
                    ),
                    "LOCAL_AIRBYTE_WAREHOUSE_URL": self.postgres.warehouse_url,
                    "LOCAL_AIRBYTE_CONNECTOR_ENV": json.dumps(
                        json.loads(self._environment.get("LOCAL_AIRBYTE_CONNECTOR_ENV") or "{}")
                        | ({"source-salesforce": connector_env} if self.uses_sample_org else {})
                    ),
                },
            )
        ]
        if self.uses_sample_org:
            plane.append(
                Program(
                    "sample_org",
                    ["local.sample_org", "serve"],
                    port=self.settings.sample_org_port,
                    ready="/health",
                    fork_server=self._fork_server,
                    docs="/docs",
                    log=self._logs / "sample_org.log",
                    env=self._inherited("SAMPLE_ORG_")
                    | {
                        "SAMPLE_ORG_PORT": str(self.settings.sample_org_port),
                        "SAMPLE_ORG_PROXY_PORT": str(self.settings.sample_org_proxy_port),
                        "SAMPLE_ORG_STATE_DIR": str(org_dir),
                        "SAMPLE_ORG_CLIENT_ID": org.client_id,
                        "SAMPLE_ORG_CLIENT_SECRET": org.client_secret.get_secret_value(),
                        "SAMPLE_ORG_REFRESH_TOKEN": org.refresh_token.get_secret_value(),
                    },
                )
            )
        if self.settings.sample_api:
            plane.append(self._sample_api())
        return plane

    def _sample_api(self) -> Program:
        sample = SampleApi()
        return Program(
            "sample_api",
            ["local.sample_api"],
            port=self.settings.sample_api_port,
            ready="/health",
            fork_server=self._fork_server,
            log=self._logs / "sample_api.log",
            env=self._inherited("SAMPLE_API_")
            | {
                "SAMPLE_API_PORT": str(self.settings.sample_api_port),
                "SAMPLE_API_STATE_DIR": str(self._state / "sample_api"),
                "SAMPLE_API_API_KEY": sample.api_key.get_secret_value(),
                "SAMPLE_API_CLIENT_ID": sample.client_id,
                "SAMPLE_API_CLIENT_SECRET": sample.client_secret.get_secret_value(),
            },
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
        return Program(
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
            fork_server=self._fork_server,
            docs="" if name == CONSOLE else "/docs",
            log=self._logs / f"{name}{suffix}.log",
            # All callers are on this machine, so a forwarded address would be forgeable.
            env={"FORWARDED_ALLOW_IPS": ""}
            | self._service_environment(name)
            | {"METRICS_PORT": str(self._port_of(f"{name}_metrics", replica))},
        )

    def _service_environment(self, name: str) -> dict[str, str]:
        """The environment of a service, with only what it needs.

        Each service has its own registry login. Only the auth_broker gets credentials, and of the
        rest only the registry's address. Only the drift_repair_agent gets the webhook signing key,
        and only the orchestrator the rotation key.
        """
        if name == CONSOLE:
            return self._console_environment()
        keys = self._state / "keys"
        known = {
            "SERVICE_PRIVATE_KEY_DIR": str(keys / name),
            "SERVICE_PUBLIC_KEYS_DIR": str(keys / "public"),
            "SUPABASE_DB_URL": self._registry_url(name),
        }
        if name == "auth_broker":
            return (
                self._inherited(*CREDENTIAL_PREFIXES)
                | dict.fromkeys(WITHHELD, "")
                | self._sample_credential()
                | self._sample_api_credentials()
                | known
            )
        peers = {f"{peer.upper()}_URL": self.url_of(peer) for peer in SERVICES}
        addresses = self.addresses
        ours = ["AIRBYTE_API_URL", "AIRBYTE_WORKSPACE_ID", "AIRBYTE_DESTINATION_ID"]
        if name in CALL_AIRBYTE:
            ours.append("AIRBYTE_API_KEY")
        return (
            {"JOB_POLL_INTERVAL": "0.5", "KEY_ENVIRONMENT": _KEY_ENVIRONMENT}
            | self._inherited()
            # Empty, so that a `.env` for a real Airbyte or Supabase has no effect here.
            | dict.fromkeys(WITHHELD, "")
            | known
            | (self._repair_keys() if name == "drift_repair_agent" else {})
            | (self._generated_key("ROTATION_DIGEST_KEY") if name == "orchestrator" else {})
            | peers
            | {name: addresses[name] for name in (*ours, "REDIS_URL")}
        )

    def _console_environment(self) -> dict[str, str]:
        """The environment of the console: no login, no credential, and a key for events alone."""
        return (
            self._inherited("CONSOLE_")
            | self._generated_key("CONSOLE_SESSION_KEYS")
            | {f"{peer.upper()}_URL": self.url_of(peer) for peer in SERVICES}
            | {
                "CONSOLE_URL": self.url_of(CONSOLE),
                "SERVICE_PRIVATE_KEY_DIR": str(self._state / "keys" / CONSOLE),
                "CONSOLE_SIGN_IN_DIR": str(sign_in.links_in(self._state)),
            }
        )

    def _registry_url(self, service: str) -> str:
        """The registry's URL with one service's login."""
        return f"{self.postgres.url_for(service)}?sslmode=disable"

    def _repair_keys(self) -> dict[str, str]:
        """The drift_repair_agent's own settings: webhooks, and the key of saved states."""
        return self._webhooks() | self._generated_key("STATE_ENCRYPTION_KEYS")

    def _webhooks(self) -> dict[str, str]:
        """Webhook settings: receivers on this machine are allowed; messages link to the console."""
        given = self._environment.get("WEBHOOK_NETWORKS")
        return self._generated_key("WEBHOOK_SIGNING_KEY") | {
            "WEBHOOK_NETWORKS": given or "127.0.0.0/8, ::1/128",
            "CONSOLE_URL": self.url_of(CONSOLE),
        }

    def _generated_key(self, key: str) -> dict[str, str]:
        """A service's own key: the given one, else one that is generated once."""
        given = self._environment.get(key)
        return {key: given or servers.generate_once(self._state / key.lower())}

    def _sample_credential(self) -> dict[str, str]:
        if not self.uses_sample_org:
            return {}
        org = SampleOrg()
        return {
            f"{_SALESFORCE}CLIENT_ID": org.client_id,
            f"{_SALESFORCE}CLIENT_SECRET": org.client_secret.get_secret_value(),
            f"{_SALESFORCE}REFRESH_TOKEN": org.refresh_token.get_secret_value(),
            # Empty, so that a `.env` for a real org has no effect here.
            f"{_SALESFORCE}IS_SANDBOX": "",
            f"{_SALESFORCE}START_DATE": "",
        }

    def _sample_api_credentials(self) -> dict[str, str]:
        """The credentials `sample-shop` and `sample-desk`, where the sample API runs."""
        if not self.settings.sample_api:
            return {}
        sample = SampleApi()
        desk = "CREDENTIAL_SAMPLE_DESK__CREDENTIALS__"
        return {
            "CREDENTIAL_SAMPLE_SHOP__API_KEY": sample.api_key.get_secret_value(),
            f"{desk}CLIENT_ID": sample.client_id,
            f"{desk}CLIENT_SECRET": sample.client_secret.get_secret_value(),
        }

    def _inherited(self, *prefixes: str) -> dict[str, str]:
        """The environment without variables of specific processes, except those of `prefixes`."""
        no_proxy = [self._environment.get("NO_PROXY", ""), "127.0.0.1", "localhost"]
        return {
            name: value
            for name, value in self._environment.items()
            if not name.startswith(PREFIXES) or (prefixes and name.startswith(prefixes))
        } | {"NO_PROXY": ",".join(filter(None, no_proxy))}

    def _write_env_files(self) -> None:
        """Write the files to source in a shell: `env`, and `env.owner` only for `make migrate`."""
        env_files.write(self._state / "env", self.addresses)
        env_files.write(self._state / "env.owner", self._owner)


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
            environment={k: v for k, v in given.items() if not k.startswith(_SALESFORCE)},
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
