"""Runs the registry's migrations against SUPABASE_DB_URL, one run at a time."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from shared.config import Settings, load
from shared.database import connect_arguments, sqlalchemy_url
from shared.models import Base

_ONE_AT_A_TIME = int.from_bytes(b"aammigra", "big", signed=True)


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


async def _run() -> None:
    address = load(Settings).registry_address
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
