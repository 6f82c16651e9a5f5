"""The registry's engine and transactions: all access of a process to Postgres."""

from __future__ import annotations

import asyncio
import select
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import URL, Connection, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from shared.auth import label_limits
from shared.errors import Unavailable, UpstreamUnknown
from shared.observability import logs, tracing
from shared.postgres_address import PostgresAddress

log = logs.get(__name__)

_AWAY = "The registry cannot be reached now."
_READ_ONLY = "The registry accepts no writes at the moment: it is read-only."
_FULL = "The registry accepts no writes at the moment: its disk is full."
_IS_READ_ONLY = text(
    "SELECT CAST(current_setting('transaction_read_only') AS boolean) OR pg_is_in_recovery()"
)
# A sort that exceeds its memory spills to disk, which shows whether there is free space without
# writing a row. It takes about 3 ms.
_LITTLE_MEMORY = text("SET LOCAL work_mem = '64kB'")
_SPILL = text(
    "SELECT count(*) FROM (SELECT n FROM generate_series(1, 4000) n ORDER BY -n OFFSET 1) s"
)
_REFUSED_FOR_S = 60.0
"""How long a refused write makes the registry count as not writable, unless another succeeds."""
_NOT_GRANTED = (
    "The login of SUPABASE_DB_URL may not use the registry: make it a member of aam_{service}."
)
_MAY_WRITE = text("SELECT has_table_privilege(to_regclass(:table), 'INSERT')")
_OWN_TABLES = {
    "auth_broker": "credential_audit",
    "drift_repair_agent": "repairs",
    "schema_observer": "drifts",
    "rag_engine": "knowledge",
}
"""A table that only this service inserts into; the orchestrator's is api_keys."""
_NOT_MIGRATED = "The registry is not migrated: run `alembic upgrade head`."


# Until the end of the transaction. Without `public`, a table that has no view does not exist.
_LIMIT = text(
    "SELECT set_config('search_path', 'aam_limited', true), set_config('aam.labels', :labels, true)"
)

T = TypeVar("T")

_TRUSTED_FOR_S = 1.0
"""How long a pooled connection is used again without asking the server."""
_INSISTENCE = timedelta(seconds=30)
_PAUSE_S = 0.25


class Database:
    """Sessions and transactions on the registry; one instance per process and event loop.

    An asyncpg engine that is used from two event loops crashes the process.
    """

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        *,
        reads: async_sessionmaker[AsyncSession] | None = None,
        engine: AsyncEngine | None = None,
        application: str = "orchestrator",
    ) -> None:
        self._sessions = sessions
        self._reads = reads or sessions
        self._engine = engine
        self._refused: tuple[float, str] | None = None
        """When the registry last refused a write as read-only or full, and the error's detail."""
        self._service = application if application in _OWN_TABLES else "orchestrator"

    @classmethod
    def at(cls, address: PostgresAddress, *, application: str, connections: int = 20) -> Database:
        """Create an engine for an address; it connects with the first transaction.

        At most `connections` are open at once. They stay open, since opening one costs Postgres
        more processor time than a transaction.
        """
        engine = create_async_engine(
            sqlalchemy_url(address),
            connect_args=connect_arguments(address)
            | {"server_settings": session_settings(application)},
            hide_parameters=True,
            json_deserializer=str,  # models.RawJson: JSON stays text
            pool_size=connections,
            max_overflow=0,
            pool_timeout=10,
            pool_use_lifo=True,  # those in use need no check, see `_check_pooled`
        )
        _check_pooled(engine)
        tracing.trace_engine(engine)
        return cls.on(engine, application=application)

    @classmethod
    def on(cls, engine: AsyncEngine, *, application: str) -> Database:
        """Use an existing engine; `close` disposes of it."""
        autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        return cls(
            async_sessionmaker(engine, expire_on_commit=False),
            reads=async_sessionmaker(autocommit, expire_on_commit=False),
            engine=engine,
            application=application,
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One short transaction, committed at the end of the block; never held over network calls.

        Raises:
            Unavailable: Postgres is unavailable; nothing was recorded.
            UpstreamUnknown: the response to the commit was lost; it may have succeeded.
        """
        async with self._sessions() as session:
            with self._registry_errors():
                await session.begin()
                await _limit(session)
                yield session
                await session.flush()
                await _run_last_steps(session)  # so that the commit sends nothing else
            try:
                await session.commit()
            except (DBAPIError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                raise UpstreamUnknown(
                    "The registry's answer to a commit was lost.", code="commit_unknown"
                ) from _without_message(error)
        self._refused = None

    @asynccontextmanager
    async def rehearsal(self) -> AsyncIterator[AsyncSession]:
        """A transaction that is rolled back at the end of the block, also if it succeeds.

        For dry runs: what is refused under locks raises the same error, and nothing is recorded.

        Raises:
            Unavailable: Postgres is unavailable.
        """
        with self._registry_errors():
            async with self._sessions() as session, session.begin() as transaction:
                await _limit(session)
                yield session
                await session.flush()  # so that constraints are checked
                await transaction.rollback()

    async def retry_until_committed(
        self, write: Callable[[AsyncSession], Awaitable[T]], *, within: timedelta = _INSISTENCE
    ) -> T:
        """Run `write` in a transaction, and retry while the registry is unavailable.

        For facts that are already true elsewhere. `write` must itself detect an earlier commit that
        succeeded although its response was lost.

        Raises:
            Unavailable: the registry did not recover within `within`.
            UpstreamUnknown: the same, but an earlier commit may have succeeded.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + within.total_seconds()
        while True:
            try:
                async with self.transaction() as session:
                    return await write(session)
            except (Unavailable, UpstreamUnknown):
                if clock() > until:
                    raise
            await asyncio.sleep(_PAUSE_S)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session in autocommit mode, for single statements.

        For a caller that is limited by labels it is one transaction.

        Raises:
            Unavailable: Postgres is unavailable.
        """
        with self._registry_errors():
            if label_limits.current():
                async with self._sessions() as session, session.begin():
                    await _limit(session)
                    yield session
                return
            async with self._reads() as session:
                yield session

    async def ping(self) -> None:
        """Check that the registry's tables exist, and accept writes of this service.

        A recently refused write fails the check until another write succeeds.

        Raises:
            Unavailable: unreachable, not migrated, not granted to this login, read-only or full.
        """
        table = _OWN_TABLES.get(self._service, "api_keys")
        async with self.read() as session:
            may_write = await session.scalar(_MAY_WRITE, {"table": table})
        if may_write is None:
            raise Unavailable(_NOT_MIGRATED)
        if not may_write:
            raise Unavailable(_NOT_GRANTED.format(service=self._service))
        await self._expect_writable()

    async def _expect_writable(self) -> None:
        async with self.read() as session:
            if await session.scalar(_IS_READ_ONLY):
                raise Unavailable(_READ_ONLY)
        with self._registry_errors():
            async with self._sessions() as session:
                await session.execute(_LITTLE_MEMORY)
                await session.execute(_SPILL)
        if self._refused is None:
            return
        refused_at, reason = self._refused
        if time.monotonic() < refused_at + _REFUSED_FOR_S:
            raise Unavailable(reason)

    def _registry_errors(self) -> _registry_errors:
        return _registry_errors(self._service, self._note_refusal)

    def _note_refusal(self, reason: str) -> None:
        if reason in (_READ_ONLY, _FULL):
            self._refused = (time.monotonic(), reason)

    async def close(self) -> None:
        """Close every pooled connection."""
        if self._engine is not None:
            await self._engine.dispose()


def _check_pooled(engine: AsyncEngine) -> None:
    """Replace pooled connections that the server has closed before a transaction uses them.

    The server is asked, which takes three round trips, only after a second without use, or if it
    has sent something meanwhile, as it does when it ends a session. `pool_pre_ping` of SQLAlchemy
    asks before each transaction.
    """
    dialect = engine.sync_engine.dialect

    def returned(_: object, record: ConnectionPoolEntry) -> None:
        record.info["returned_at"] = time.monotonic()

    def taken(connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
        returned_at = record.info.get("returned_at")
        if returned_at is None:
            return
        held: Any = record.driver_connection
        is_lost = held.is_closed()
        was_idle = time.monotonic() - returned_at > _TRUSTED_FOR_S
        if not is_lost and (was_idle or _has_input(held)):
            try:
                dialect.do_ping(connection)
            except (dialect.loaded_dbapi.Error, OSError):
                is_lost = True
        if is_lost:
            raise InvalidatePoolError  # the pool connects again, and trusts none of the others

    event.listen(engine.sync_engine, "checkin", returned)
    event.listen(engine.sync_engine, "checkout", taken)


def _has_input(connection: Any) -> bool:
    """Whether a connection has bytes, or its end, that the event loop has not read yet."""
    waiting = select.poll()
    waiting.register(connection._transport.get_extra_info("socket"), select.POLLIN)
    return bool(waiting.poll(0))


async def _limit(session: AsyncSession) -> None:
    """Show a transaction only what the current caller may see; not limited: everything."""
    if labels := label_limits.current():
        await session.execute(_LIMIT, {"labels": label_limits.to_json(labels)})


_LAST_STEPS = "aam.last_steps"


def before_commit(session: Session, step: Callable[[AsyncSession], Awaitable[None]]) -> None:
    """Run a step once, at the end of the session's current `Database.transaction`.

    The step comes after everything else in the transaction is flushed, and flushes nothing itself.
    """
    session.info.setdefault(_LAST_STEPS, {})[step] = None


async def _run_last_steps(session: AsyncSession) -> None:
    for step in session.info.pop(_LAST_STEPS, {}):
        await step(session)


class _registry_errors:
    """Convert outages to Unavailable, without the driver's text, which may quote values."""

    def __init__(self, service: str, note: Callable[[str], None]) -> None:
        self._service = service
        self._note = note

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: object
    ) -> None:
        reason = _unavailability(error, self._service)
        if reason is not None:
            self._note(reason)
            raise Unavailable(reason) from _without_message(error)


def _unavailability(error: object, service: str) -> str | None:
    """Why the registry is unavailable; None for any other error."""
    if isinstance(error, PoolTimeoutError):
        return "All connections to the registry are in use."
    if isinstance(error, ssl.SSLCertVerificationError):
        return "The registry's certificate is not signed by the configured CA."
    if isinstance(error, OSError):
        return _AWAY
    return _unavailability_by_sqlstate(error, service) if isinstance(error, DBAPIError) else None


def _unavailability_by_sqlstate(error: DBAPIError, service: str) -> str | None:
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    if sqlstate.startswith(_NO_LOGIN):
        return "The registry refuses the user, the password or the database of SUPABASE_DB_URL."
    if sqlstate in _NO_WRITES:
        return _NO_WRITES[sqlstate]
    if sqlstate == _NO_PRIVILEGE:
        # The text of this code, "permission denied for table …", names an object, never a value.
        log.error("registry_not_granted", service=service, detail=_first_line(error.orig))
        return _NOT_GRANTED.format(service=service)
    if sqlstate.startswith(_OLDER):
        return _NOT_MIGRATED
    is_away = sqlstate.startswith(_NO_CONNECTION) or error.connection_invalidated
    if is_away or isinstance(error, OperationalError | InterfaceError):
        return _AWAY
    return "The registry cannot do this at the moment." if sqlstate.startswith(_NOT_NOW) else None


def _first_line(error: object) -> str:
    return str(error).partition("\n")[0]


# Classes of Postgres's SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
_NO_LOGIN = ("28", "3D")
_NO_CONNECTION = "08"  # asyncpg's own code, too, where the server hangs up during the handshake
_OLDER = ("42P01", "42703")  # undefined table or column
_NO_PRIVILEGE = "42501"
_NO_WRITES = {
    "25006": _READ_ONLY,  # a standby during a failover, or configured as read-only
    "53100": _FULL,
}
_NOT_NOW = (
    "40",  # serialization failure, deadlock
    "53",  # out of connections, disk or memory
    "55P03",  # lock_timeout
    "57",  # starting, stopping, statement_timeout
    "58",  # system error, such as I/O
)


def _without_message(error: object) -> BaseException:
    """An error that names a driver error's class, without the message, which may quote values."""
    return RuntimeError(type(error).__name__)


def sqlalchemy_url(address: PostgresAddress, *, driver: str = "asyncpg") -> URL:
    """The address as a SQLAlchemy URL, for asyncpg or psycopg2."""
    return URL.create(
        f"postgresql+{driver}",
        username=address.user,
        password=address.password,
        host=address.host,
        port=address.port,
        database=address.database,
    )


def connect_synchronously(address: PostgresAddress) -> Connection:
    """A synchronous connection for commands such as the migrations.

    It uses psycopg2, so `sslmode` and `sslrootcert` are libpq's own. With a CA, it verifies at
    least what the services do: the certificate, and the server's name unless sslmode is verify-ca.

    Raises:
        Unavailable: it cannot connect; the detail is libpq's message without the password.
    """
    engine = create_engine(
        sqlalchemy_url(address, driver="psycopg2"),
        connect_args=_libpq_arguments(address),
        poolclass=NullPool,
        hide_parameters=True,
    )
    try:
        return engine.connect()
    except OperationalError as error:
        raise Unavailable(_reason(error, address)) from _without_message(error)


def _libpq_arguments(address: PostgresAddress) -> dict[str, Any]:
    """Arguments of libpq besides the URL; https://www.postgresql.org/docs/17/libpq-ssl.html."""
    mode, root_cert = address.ssl_mode, address.ssl_root_cert
    if mode != "disable" and root_cert is not None:
        mode = "verify-ca" if mode == "verify-ca" else "verify-full"
    elif mode in ("verify-ca", "verify-full"):
        # "system" is the default CA file of psycopg2's own OpenSSL, which may not exist.
        root_cert = Path(ssl.get_default_verify_paths().cafile or "system")
    arguments = {"connect_timeout": 10, "sslmode": mode}
    return arguments | ({} if root_cert is None else {"sslrootcert": str(root_cert)})


def _reason(error: OperationalError, address: PostgresAddress) -> str:
    line = _first_line(error.orig) or "no reason was given"
    return line.replace(address.password, "…") if address.password else line


_warned: set[str] = set()


def connect_arguments(address: PostgresAddress) -> dict[str, Any]:
    """Arguments of asyncpg besides the URL: timeouts and TLS.

    With a CA the server's certificate is verified, and its name unless sslmode is verify-ca.
    `require` without a CA encrypts without verification, which is logged once per host.
    """
    return {"timeout": 10, "command_timeout": 120, "ssl": _tls(address)}


def _tls(address: PostgresAddress) -> ssl.SSLContext | str:
    if address.ssl_mode == "disable":
        return "disable"
    if address.ssl_root_cert is not None:
        context = ssl.create_default_context(cafile=str(address.ssl_root_cert))
        context.check_hostname = address.ssl_mode != "verify-ca"
        return context
    if address.ssl_mode in ("verify-ca", "verify-full"):
        context = ssl.create_default_context()
        context.check_hostname = address.ssl_mode == "verify-full"
        return context
    if address.ssl_mode == "require" and address.host not in _warned:
        _warned.add(address.host)
        log.warning("registry_tls_unverified", host=address.host, remedy="SUPABASE_DB_CA_FILE")
    return address.ssl_mode


def session_settings(application: str) -> dict[str, str]:
    """Settings of every session: timeouts for statements, locks and idle transactions."""
    return {
        "application_name": f"aam-{application}",
        "timezone": "UTC",
        "statement_timeout": "60s",
        "lock_timeout": "10s",
        # A transaction is idle only if its process was stopped; it must not hold its locks.
        "idle_in_transaction_session_timeout": "5s",
    }
