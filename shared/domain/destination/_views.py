"""A view that has the values of a renamed field under its former name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from shared.domain.catalog import StreamId
from shared.domain.catalog._model import Stream
from shared.domain.destination._model import Destination
from shared.domain.destination._names import columns
from shared.domain.destination._tables import Naming, tables
from shared.domain.destination._types import field_type

_QUOTES: Final[Mapping[str, tuple[str, str, str]]] = {
    "postgres": ('"', '"', '""'),
    "redshift": ('"', '"', '""'),
    "snowflake": ('"', '"', '""'),
    "bigquery": ("`", "`", "\\`"),
    "databricks": ("`", "`", "``"),
    "clickhouse": ("`", "`", "\\`"),
    "mssql": ("[", "]", "]]"),
}
"""How a dialect quotes a name: before, after, and the closing quote inside a name."""
_SUFFIX: Final = "_compatible"


def compatibility_view(
    destination: Destination,
    stream: StreamId,
    naming: Naming,
    *,
    before: Stream,
    after: Stream,
    selected: Collection[str] | None,
    renamed: tuple[str, str],
) -> str | None:
    """The statement that creates a view with `COALESCE(new, old) AS old` beside all columns.

    `selected` are the fields that are synced; None for all. Where the destination does not keep
    the former column, the view has the new one alone under that name. If the schema is not known,
    the table is not qualified. None if the dialect or a column is not known, or if the two fields
    have different types.
    """
    quotes = _QUOTES.get(destination.kind)
    old, new = renamed
    fields = before.fields() or {}
    types = [
        field_type(msgspec.json.decode(schema))
        for schema in (fields.get(old), (after.fields() or {}).get(new))
        if schema is not None
    ]
    if quotes is None or destination.is_raw_only or len(types) != 2 or types[0] != types[1]:
        return None
    (table,) = tables(destination, [stream], naming)
    kept = [name for name in fields if name != old and (selected is None or name in selected)]
    named = columns(destination.rules, [old, *kept, new])
    if any(one.name is None for one in named):
        return None
    opening, closing, escaped = quotes

    def quoted(name: str) -> str:
        return f"{opening}{name.replace(closing, escaped)}{closing}"

    former, *others, latter = [quoted(one.name or "") for one in named]
    is_kept = destination.at(destination.rules.removed) == "keep"
    value = f"COALESCE({latter}, {former})" if is_kept else latter
    listed = ",\n  ".join([*others, latter, f"{value} AS {former}"])
    schema = "" if table.schema is None else f"{quoted(table.schema)}."
    place, view = (f"{schema}{quoted(table.name + suffix)}" for suffix in ("", _SUFFIX))
    return f"CREATE VIEW {view} AS\nSELECT\n  {listed}\nFROM {place};"
