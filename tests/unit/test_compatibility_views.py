"""The SQL of a view that has a renamed field's values under its former name."""

from __future__ import annotations

import pytest

from shared.domain import catalog
from shared.domain.catalog import StreamId
from shared.domain.destination import Destination, Naming, compatibility_view, identify
from tests.unit.catalogs import TEXT, Json, document, stream

FIELDS: Json = {"id": TEXT, "to]tal": TEXT}
STREAM = StreamId(None, "orders")


def view(destination: Destination, new: Json = TEXT) -> str | None:
    """The view for `to]tal`, which is called `sum` now."""
    before, after = (
        catalog.parse(document(stream(fields=fields))).streams[0].stream
        for fields in (FIELDS, {"id": TEXT, "sum": new})
    )
    return compatibility_view(
        destination,
        STREAM,
        Naming(prefix="p_"),
        before=before,
        after=after,
        selected=None,
        renamed=("to]tal", "sum"),
    )


def at(kind: str, tag: str) -> Destination:
    """A destination of this kind and version."""
    return identify(None, f"airbyte/destination-{kind}", tag, default_schema="public")


def test_view_has_every_column_once() -> None:
    assert view(at("postgres", "3.0.14")) == (
        'CREATE VIEW "public"."p_orders_compatible" AS\n'
        'SELECT\n  "id",\n  "sum",\n  COALESCE("sum", "to_tal") AS "to_tal"\n'
        'FROM "public"."p_orders";'
    )


def test_column_that_the_destination_drops_is_not_read() -> None:
    sql = view(at("postgres", "3.0.13"))
    assert sql is not None
    assert '"sum" AS "to_tal"' in sql
    assert "COALESCE" not in sql


@pytest.mark.parametrize(
    "kind, tag, place",
    [
        ("bigquery", "3.0.20", "`public`.`p_orders`"),
        ("databricks", "4.0.1", "`public`.`p_orders`"),
        ("mssql", "2.2.0", "[public].[p_orders]"),
    ],
)
def test_names_are_quoted_for_the_dialect(kind: str, tag: str, place: str) -> None:
    sql = view(at(kind, tag))
    assert sql is not None
    assert sql.endswith(f"FROM {place};")
    assert ("AS [to]]tal]" in sql) is (kind == "mssql")


def test_no_view_without_a_dialect_or_of_two_types() -> None:
    assert view(Destination(default_schema="public")) is None
    assert view(at("postgres", "3.0.14"), new={"type": "integer"}) is None
