"""Runs the registry's migrations against MIGRATION_DB_URL, one run at a time.

Each run ends by granting the services what they may do, so that a role which was made later gets
it by the next run.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from shared.config import MigrationSettings, load
from shared.database import connect_arguments, sqlalchemy_url
from shared.models import Base

_ONE_AT_A_TIME = int.from_bytes(b"aammigra", "big", signed=True)
_PRIVILEGES = Path(__file__).with_name("privileges.sql")
_NO_ROLE = """\
Nothing was granted to the services: the role aam_services is missing, and this login may not make
it. Have `CREATE ROLE aam_services NOLOGIN` said by one that may, and run this again; until then the
services need the login of the tables' owner.
"""


def _migrate(connection: Connection) -> None:
    connection.execute(text(f"SELECT pg_advisory_lock({_ONE_AT_A_TIME})"))
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        include_name=lambda name, kind, _: (
            kind != "table" or not (name or "").startswith("pgqueuer")
        ),
    )
    with context.begin_transaction():
        context.run_migrations()
        connection.exec_driver_sql(_PRIVILEGES.read_text())
    if connection.scalar(text("SELECT to_regrole('aam_services') IS NULL")):
        context.config.print_stdout(_NO_ROLE)


async def _run() -> None:
    address = load(MigrationSettings).registry_address
    engine = create_async_engine(
        sqlalchemy_url(address),
        connect_args=connect_arguments(address),
        poolclass=pool.NullPool,
        hide_parameters=True,
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_migrate)
    except OSError as error:
        raise SystemExit(f"The registry does not answer ({type(error).__name__}).") from None
    finally:
        await engine.dispose()


asyncio.run(_run())
