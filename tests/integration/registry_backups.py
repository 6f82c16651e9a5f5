"""Backups of a registry by Postgres's own programs, and registries that are restored from them."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import asyncpg

from local.processes import servers
from tests.integration.conftest import Meshes
from tests.pools import Sql
from tests.waiting import until, until_not

_AN_HOUR_AGO = """
    UPDATE operations SET created_at = created_at - interval '1 hour',
        lease_until = lease_until - interval '1 hour', deadline = deadline - interval '1 hour',
        in_flight_until = in_flight_until - interval '1 hour',
        ended_at = ended_at - interval '1 hour'
"""


async def run(
    program: str, *arguments: str, password: str, user: tuple[int, int] | None = None
) -> None:
    """Run a program of Postgres to its successful end, such as `pg_dump`."""
    uid, gid = user or (None, None)
    process = await asyncio.create_subprocess_exec(
        str(servers._postgres_bin() / program),
        *arguments,
        env={"PATH": os.defpath, "PGPASSWORD": password},
        user=uid,
        group=gid,
        extra_groups=None if uid is None else [],
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()


def login(server: servers.Postgres) -> tuple[str, ...]:
    """The arguments with which a program connects to the server, as the registry's owner."""
    return ("--host=127.0.0.1", f"--port={server.port}", "--username=aam", "--no-password")


async def dump(server: servers.Postgres, file: Path) -> None:
    """Write the registry as it is now to a file; services may run meanwhile."""
    target = (f"--file={file}", "--format=custom", "aam")
    await run("pg_dump", *login(server), *target, password=server.password)


class Archived:
    """A Postgres that archives its WAL, with a base backup from which it can be restored."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.chmod(0o711)
        self._archive = self._owned("archive")
        self.server = servers.Postgres(
            folder / "postgres",
            port=servers.free_port(),
            options={
                **servers.THROWAWAY_OPTIONS,
                "archive_mode": "on",
                "archive_command": f"cp %p {self._archive}/%f",
            },
        )

    def _owned(self, name: str) -> Path:
        """A folder of the user that Postgres runs as."""
        made = self._folder / name
        made.mkdir(mode=0o700)
        if self.server_user is not None:
            os.chown(made, *self.server_user)
        return made

    @property
    def server_user(self) -> tuple[int, int] | None:
        """The user and the group that Postgres runs as, if that is another one."""
        return servers._unprivileged_user()

    async def back_up(self) -> None:
        """Make the base backup; services may run meanwhile."""
        backup = self._owned("restored") / "cluster"
        await run(
            "pg_basebackup",
            *login(self.server),
            f"--pgdata={backup}",
            "--checkpoint=fast",
            password=self.server.password,
            user=self.server_user,
        )

    async def archive_all(self) -> None:
        """Wait until the archive has everything that was written until now."""
        connection: Sql = await asyncpg.connect(self.server.url)
        try:
            newest = await connection.fetchval("SELECT pg_walfile_name(pg_switch_wal())")
            await until(
                lambda: connection.fetchval(
                    "SELECT last_archived_wal >= $1 FROM pg_stat_archiver", newest
                )
            )
        finally:
            await connection.close()

    @asynccontextmanager
    async def restored_to(self, time: datetime) -> AsyncIterator[servers.Postgres]:
        """Run the registry as it was at a time after the base backup; its server is stopped."""
        restored = self._folder / "restored"
        for password in ("password", "services_password", "warehouse_password"):
            shutil.copy2(self.server.data_dir / password, restored)
        (restored / "cluster" / "recovery.signal").touch()
        options = {
            **servers.THROWAWAY_OPTIONS,
            "restore_command": f"cp {self._archive}/%f %p",
            "recovery_target_time": time.isoformat(),
            "recovery_target_action": "promote",
        }
        with servers.Postgres(restored, port=servers.free_port(), options=options) as server:
            server.start()
            connection: Sql = await asyncpg.connect(server.url)
            try:
                await until_not(lambda: connection.fetchval("SELECT pg_is_in_recovery()"))
            finally:
                await connection.close()
            yield server


@asynccontextmanager
async def restored(
    server: servers.Postgres, file: Path, meshes: Meshes, *options: str
) -> AsyncIterator[Meshes]:
    """Restore a dump into a new database of the server, which exists within the block.

    Its operations look as if the backup was made an hour ago, with leases and deadlines of then.
    The meshes that start on it have the Valkey of `meshes`. `options` are those of pg_restore.
    """
    name = f"restored_{uuid4().hex}"
    await _execute(server, f"CREATE DATABASE {name}")
    try:
        target = (f"--dbname={name}", "--exit-on-error", *options, str(file))
        await run("pg_restore", *login(server), *target, password=server.password)
        sql = await asyncpg.connect(server.url_of(name))
        try:
            await sql.execute(_AN_HOUR_AGO)
            yield replace(meshes, registry_url=_in(server.services_url, name), sql=sql)
        finally:
            await sql.close()
    finally:
        await _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(server: servers.Postgres, statement: str) -> None:
    connection: Sql = await asyncpg.connect(server.url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _in(url: str, database: str) -> str:
    return f"{url.rpartition('/')[0]}/{database}"
