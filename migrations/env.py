"""Runs the registry's migrations against MIGRATION_DB_URL, one run at a time.

Each run ends by making the function that prunes history, and by granting the services what they may
do, so that a role which was made later gets it by the next run.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from alembic import context
from sqlalchemy import Connection, Enum, text

from shared.config import MigrationSettings, load
from shared.database import connect_synchronously
from shared.errors import Unavailable
from shared.models import Base

_ONE_AT_A_TIME = int.from_bytes(b"aammigra", "big", signed=True)
_AFTERWARDS = ("prune_history.sql", "limited_views.sql", "privileges.sql")
_NO_LONG_LOCKS = text("SET LOCAL lock_timeout = '5s'")
"""A long read of a table would otherwise make everyone wait who comes after the migration."""
_NO_VIEWS = text("DROP SCHEMA IF EXISTS aam_limited CASCADE")
"""Views would not let a migration change the columns that they show."""
_MISSING = text("""
    SELECT name FROM unnest(ARRAY[
        'aam_services', 'aam_orchestrator', 'aam_auth_broker', 'aam_drift_repair_agent',
        'aam_schema_observer', 'aam_rag_engine'
    ]) name WHERE to_regrole(name) IS NULL
""")
_NO_ROLES = """\
This login may not create roles, and these are missing: {names}.
A service whose role is missing needs the login of the tables' owner. As a role with CREATEROLE, run
{statements}
and then this again, which grants each what its service needs.
"""


def _type_differs(*given: object) -> bool | None:
    """Whether a column's type differs from its model's; None for Alembic's own comparison.

    The models name the schema of an enum, which is not read from the database if it is the default.
    """
    _, _, _, found, wanted = given
    if isinstance(found, Enum) and isinstance(wanted, Enum):
        return (found.name, found.enums) != (wanted.name, wanted.enums)
    return None


def _migrate(connection: Connection) -> None:
    connection.execute(text(f"SELECT pg_advisory_lock({_ONE_AT_A_TIME})"))
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=_type_differs,
        include_name=lambda name, kind, _: (
            kind != "table" or not (name or "").startswith("pgqueuer")
        ),
    )
    with context.begin_transaction():
        connection.execute(_NO_LONG_LOCKS)
        connection.execute(_NO_VIEWS)
        context.run_migrations()
        with closing(connection.connection.cursor()) as cursor:
            for name in _AFTERWARDS:  # past SQLAlchemy: their `%` is no parameter
                cursor.execute(Path(__file__).with_name(name).read_text())
    if missing := connection.scalars(_MISSING).all():
        statements = "\n".join(f"  CREATE ROLE {name} NOLOGIN;" for name in missing)
        context.config.print_stdout(
            _NO_ROLES.format(names=", ".join(missing), statements=statements)
        )


def _run() -> None:
    try:
        connection = connect_synchronously(load(MigrationSettings).registry_address)
    except Unavailable as error:
        raise SystemExit(f"The registry cannot be reached: {error.detail}") from None
    with connection:
        _migrate(connection)


_run()
