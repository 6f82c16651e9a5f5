"""Basics of all tables: names of constraints, raw JSON columns, partial indexes."""

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
    """A JSONB column whose values are written and read as JSON text.

    SQLAlchemy's own JSON type would parse and dump them, which for a large catalog costs as much as
    the insert.
    """

    cache_ok = True

    def get_col_spec(self, **_kwargs: Any) -> str:
        """The column's type in DDL."""
        return "JSONB"


class Base(DeclarativeBase):
    """Names every constraint, so that migrations can refer to it."""

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
    """A partial index of the rows in which a column is not null."""
    is_set = text(f"{column} IS NOT NULL")  # nosemgrep: built-sql - a column's name, of ours
    return Index(f"ix_{table}_{column}", column, postgresql_where=is_set)
