"""What every table shares: naming of constraints, raw JSON, partial indexes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    DateTime,
    Index,
    LargeBinary,
    MetaData,
    Text,
    text,
)
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import UserDefinedType


class RawJson(UserDefinedType[str]):
    """A JSONB column whose values go in and come out as JSON text.

    SQLAlchemy's own JSON type would parse and dump them: as dear as the insert on a large catalog.
    """

    cache_ok = True

    def get_col_spec(self, **_kwargs: Any) -> str:
        """The column's type in DDL."""
        return "JSONB"


class Base(DeclarativeBase):
    """Names every constraint, so that a migration can find it again."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: DateTime(timezone=True),
        str: Text(),
        bytes: LargeBinary(),
    }


def where_set(table: str, column: str) -> Index:
    """An index of the rows in which a column is set: of those that end, or refer to another row."""
    is_set = text(f"{column} IS NOT NULL")  # nosemgrep: built-sql - a column's name, of ours
    return Index(f"ix_{table}_{column}", column, postgresql_where=is_set)
