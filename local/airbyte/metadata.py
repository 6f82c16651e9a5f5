"""The plane's state in one SQLite file: sources, connections, catalogs, states, jobs.

It holds the sources' configurations including secrets, as Airbyte's own database does, so the
directory has mode 0700 and the file 0600. Statements are short (well under a millisecond) and run
on the event loop; only whole catalogs are worth a thread.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

SCHEMA = """
CREATE TABLE IF NOT EXISTS actors (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, definition_id TEXT NOT NULL, name TEXT NOT NULL,
    config TEXT NOT NULL, created_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS catalogs (id TEXT PRIMARY KEY, protocol BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS discoveries (
    source_id TEXT NOT NULL REFERENCES actors ON DELETE CASCADE, version TEXT NOT NULL,
    config_hash TEXT NOT NULL, catalog_id TEXT NOT NULL REFERENCES catalogs,
    created_at INTEGER NOT NULL, PRIMARY KEY (source_id, version, config_hash));
CREATE TABLE IF NOT EXISTS connections (
    id TEXT PRIMARY KEY, source_id TEXT NOT NULL REFERENCES actors ON DELETE CASCADE,
    destination_id TEXT NOT NULL REFERENCES actors ON DELETE CASCADE,
    settings TEXT NOT NULL, streams BLOB NOT NULL, created_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS states (
    connection_id TEXT NOT NULL REFERENCES connections ON DELETE CASCADE,
    kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (connection_id, kind, namespace, name));
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, connection_id TEXT NOT NULL, status TEXT NOT NULL,
    streams TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    started_at INTEGER);
CREATE UNIQUE INDEX IF NOT EXISTS one_running_job ON jobs (connection_id)
    WHERE status IN ('pending', 'running', 'incomplete');
CREATE INDEX IF NOT EXISTS jobs_of_connection ON jobs (connection_id, id);
CREATE TABLE IF NOT EXISTS refreshes (
    connection_id TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, mode TEXT NOT NULL,
    job_id INTEGER REFERENCES jobs ON DELETE CASCADE);
CREATE INDEX IF NOT EXISTS refreshes_of_connection ON refreshes (connection_id, job_id);
CREATE TABLE IF NOT EXISTS attempts (
    job_id INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE, number INTEGER NOT NULL,
    status TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    ended_at INTEGER, stats TEXT NOT NULL, failure TEXT, PRIMARY KEY (job_id, number));
CREATE TABLE IF NOT EXISTS packages (name TEXT PRIMARY KEY, version TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS manifests (
    slug TEXT NOT NULL, version INTEGER NOT NULL, document TEXT NOT NULL,
    created_at INTEGER NOT NULL, PRIMARY KEY (slug, version));
CREATE TABLE IF NOT EXISTS commands (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, status TEXT NOT NULL, output TEXT NOT NULL,
    created_at INTEGER NOT NULL);
"""

OPEN = ("pending", "running", "incomplete")
MOST_JOBS = 200
MOST_DISCOVERIES = 5
Row = dict[str, Any]


class InUse(Exception):
    """Another plane uses this state directory."""


class Metadata:
    """The SQLite file and its queries. Rows are dictionaries, with JSON columns parsed."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)
        self._lock_file = os.fdopen(os.open(directory / "lock", os.O_CREAT | os.O_RDWR, 0o600))
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock_file.close()
            raise InUse(f"Another local Airbyte works in {directory}.") from error
        path = directory / "metadata.sqlite3"
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        """Close the file, so that another plane may open it."""
        with self._lock:
            self._db.close()
        self._lock_file.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block in a transaction."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def one(self, sql: str, *values: Any) -> Row | None:
        """Return the first row, or None."""
        with self._lock:
            row = self._db.execute(sql, values).fetchone()
        return None if row is None else _parsed(row)

    def all(self, sql: str, *values: Any) -> list[Row]:
        """Return every row."""
        with self._lock:
            return [_parsed(row) for row in self._db.execute(sql, values).fetchall()]

    def write(self, sql: str, *values: Any) -> int:
        """Run a statement and return the number of changed rows."""
        with self._lock:
            return self._db.execute(sql, values).rowcount

    def store_discovery(
        self,
        source_id: str,
        version: str,
        config_hash: str,
        catalog_id: UUID,
        protocol: bytes,
        now: int,
    ) -> None:
        """Store a discovered catalog, each distinct one once and compressed (24 MB become 3)."""
        known = self.one("SELECT 1 AS known FROM catalogs WHERE id = ?", str(catalog_id))
        packed = zlib.compress(protocol, 6) if known is None else b""
        with self.transaction():
            if packed:
                self.write("INSERT OR IGNORE INTO catalogs VALUES (?, ?)", str(catalog_id), packed)
            self.write(
                "INSERT OR REPLACE INTO discoveries VALUES (?, ?, ?, ?, ?)",
                source_id,
                version,
                config_hash,
                str(catalog_id),
                now,
            )

    def prune(self, now: int) -> None:
        """Delete old jobs, commands, discoveries and catalogs that no response needs.

        Keeps the newest `MOST_JOBS` jobs of each connection and its last successful one, the newest
        `MOST_DISCOVERIES` discoveries of each source, and the commands of the last day.
        """
        yesterday = now - 86400
        with self.transaction():
            self.write(
                "DELETE FROM commands WHERE created_at < ?"
                " AND status NOT IN ('pending', 'running')",
                yesterday,
            )
            self.write(
                "DELETE FROM jobs WHERE status NOT IN ('pending', 'running', 'incomplete')"
                " AND (id IN (SELECT id FROM (SELECT id, row_number() OVER"
                " (PARTITION BY connection_id ORDER BY id DESC) AS place FROM jobs)"
                " WHERE place > ?) AND id NOT IN (SELECT max(id) FROM jobs"
                " WHERE status = 'succeeded' GROUP BY connection_id)"
                " OR created_at < ? AND connection_id NOT IN (SELECT id FROM connections))",
                MOST_JOBS,
                yesterday,
            )
            self.write(
                "DELETE FROM refreshes WHERE job_id IS NULL"
                " AND connection_id NOT IN (SELECT id FROM connections)"
            )
            self.write(
                "DELETE FROM discoveries WHERE rowid IN (SELECT rowid FROM (SELECT rowid,"
                " row_number() OVER (PARTITION BY source_id ORDER BY created_at DESC, rowid DESC)"
                " AS place FROM discoveries) WHERE place > ?)",
                MOST_DISCOVERIES,
            )
            self.write(
                "DELETE FROM catalogs WHERE id NOT IN (SELECT catalog_id FROM discoveries)"
                " AND id NOT IN (SELECT json_extract(output, '$.catalogId') FROM commands"
                " WHERE json_extract(output, '$.catalogId') IS NOT NULL)"
            )

    def catalog(self, catalog_id: str) -> bytes:
        """Return a stored catalog, as the connector wrote it."""
        row = self.one("SELECT protocol FROM catalogs WHERE id = ?", catalog_id)
        assert row is not None  # noqa: S101 - discoveries and commands refer to existing catalogs
        return zlib.decompress(row["protocol"])

    def begin_job(self, connection_id: str, streams: Sequence[Mapping[str, Any]], now: int) -> int:
        """Insert a pending job with its first attempt, and return its id.

        It carries out the refreshes that are stored for the connection.

        Raises:
            sqlite3.IntegrityError: another job of this connection is open.
        """
        with self.transaction():
            job_id = self._db.execute(
                "INSERT INTO jobs (connection_id, status, streams, created_at, updated_at)"
                " VALUES (?, 'pending', ?, ?, ?)",
                (connection_id, dump(streams), now, now),
            ).lastrowid
            assert job_id is not None  # noqa: S101 - SQLite has just assigned it
            self._db.execute(
                "UPDATE refreshes SET job_id = ? WHERE connection_id = ? AND job_id IS NULL",
                (job_id, connection_id),
            )
            self.begin_attempt(job_id, 0, now)
        return job_id

    def begin_attempt(self, job_id: int, number: int, now: int) -> None:
        """Insert a running attempt without counts."""
        self.write(
            "INSERT INTO attempts VALUES (?, ?, 'running', ?, ?, NULL, '{}', NULL)",
            job_id,
            number,
            now,
            now,
        )

    def set_job(self, job_id: int, status: str, now: int) -> None:
        """Update the status of an open job; ended jobs do not change."""
        self.write(
            "UPDATE jobs SET status = ?, updated_at = ?, started_at = CASE WHEN ? = 'running'"
            " THEN coalesce(started_at, ?) ELSE started_at END"
            " WHERE id = ? AND status IN ('pending', 'running', 'incomplete')",
            status,
            now,
            status,
            now,
            job_id,
        )

    def count(self, job_id: int, number: int, stats: Mapping[str, Any], now: int) -> None:
        """Save an attempt's current counts."""
        self.write(
            "UPDATE attempts SET stats = ?, updated_at = ? WHERE job_id = ? AND number = ?",
            dump(stats),
            now,
            job_id,
            number,
        )

    def end_attempt(
        self, job_id: int, number: int, status: str, failure: Mapping[str, Any] | None, now: int
    ) -> None:
        """Save an attempt's final status."""
        self.write(
            "UPDATE attempts SET status = ?, failure = ?, updated_at = ?, ended_at = ?"
            " WHERE job_id = ? AND number = ?",
            status,
            None if failure is None else dump(failure),
            now,
            now,
            job_id,
            number,
        )

    def save_state(
        self, connection_id: str, kind: str, states: Mapping[tuple[str | None, str], Any]
    ) -> None:
        """Save states of one kind and delete those of other kinds: a connection has one kind."""
        with self.transaction():
            self.write(
                "DELETE FROM states WHERE connection_id = ? AND kind <> ?", connection_id, kind
            )
            for (namespace, name), state in states.items():
                self.write(
                    "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?)",
                    connection_id,
                    kind,
                    namespace or "",
                    name,
                    dump(state),
                )

    def states(self, connection_id: str) -> list[Row]:
        """Return a connection's states: kind, namespace ("" for none), name, state."""
        return self.all(
            "SELECT kind, namespace, name, state FROM states WHERE connection_id = ?"
            " ORDER BY namespace, name",
            connection_id,
        )

    def store_refresh(
        self, connection_id: str, streams: Sequence[Mapping[str, Any]], mode: str
    ) -> None:
        """Store a refresh of streams, for the connection's next job."""
        with self.transaction():
            for stream in streams:
                self.write(
                    "INSERT INTO refreshes VALUES (?, ?, ?, ?, NULL)",
                    connection_id,
                    stream.get("namespace") or "",
                    stream["name"],
                    mode,
                )

    def refreshes(self, job_id: int) -> list[Row]:
        """Return the streams that a job refreshes: namespace ("" for none), name, mode."""
        return self.all(
            "SELECT DISTINCT namespace, name, mode FROM refreshes WHERE job_id = ?"
            " ORDER BY namespace, name",
            job_id,
        )

    def delete_states(
        self, connection_id: str, streams: Collection[tuple[str | None, str]]
    ) -> None:
        """Delete the states of streams; with the last one of a global state, all of it.

        Must run in a transaction.
        """
        for namespace, name in streams:
            self.write(
                "DELETE FROM states WHERE connection_id = ? AND namespace = ? AND name = ?",
                connection_id,
                namespace or "",
                name,
            )
        if streams:
            self.write(
                "DELETE FROM states WHERE connection_id = ?1 AND kind = 'global'"
                " AND NOT EXISTS (SELECT 1 FROM states AS other"
                " WHERE other.connection_id = ?1 AND other.name <> '')",
                connection_id,
            )

    def fail_interrupted(self, failure: Mapping[str, Any], now: int) -> None:
        """Fail the jobs and commands that a previous plane left open."""
        with self.transaction():
            self.write(
                "UPDATE attempts SET status = 'failed', failure = ?, updated_at = ?, ended_at = ?"
                " WHERE status = 'running'",
                dump(failure),
                now,
                now,
            )
            self.write(
                "UPDATE jobs SET status = 'failed', updated_at = ?"
                " WHERE status IN ('pending', 'running', 'incomplete')",
                now,
            )
            self.write(
                "UPDATE commands SET status = 'completed', output = ?"
                " WHERE status IN ('pending', 'running')",
                dump({"status": "failed", "failureReason": failure["failures"][0]}),
            )


_JSON = frozenset({"document", "config", "settings", "state", "stats", "failure", "output"})


def _parsed(row: sqlite3.Row) -> Row:
    found = dict(row)
    for key in _JSON & found.keys():
        if found[key] is not None:
            found[key] = orjson.loads(found[key])
    if isinstance(found.get("streams"), bytes):
        found["streams"] = orjson.loads(zlib.decompress(found["streams"]))
    elif isinstance(found.get("streams"), str):
        found["streams"] = orjson.loads(found["streams"])
    return found


def packed(streams: Sequence[Mapping[str, Any]]) -> bytes:
    """Compress a connection's catalog for its column."""
    return zlib.compress(orjson.dumps(streams), 1)


def dump(value: Any) -> str:
    """Serialize a JSON column."""
    return orjson.dumps(value).decode()
