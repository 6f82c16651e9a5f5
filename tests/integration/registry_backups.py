"""Backups of a registry by Postgres's own programs, and registries that are restored from them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import asyncpg

from local.processes import servers
from tests.integration.conftest import Meshes
from tests.pools import Sql

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
