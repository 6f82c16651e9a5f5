"""The streams of the sample API: their fields, rows that follow from them, and changes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.errors import Invalid, NotFound

Json = dict[str, Any]
Type = Literal["string", "integer", "number", "boolean", "date", "timestamp", "array", "object"]
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
BORN = datetime(2026, 1, 1, tzinfo=UTC)
FIXED = ("id", "updated_at")
"""Fields that every stream keeps: its key and its cursor."""

_SCHEMAS: dict[str, Json] = {
    "string": {"type": ["null", "string"]},
    "integer": {"type": ["null", "integer"]},
    "number": {"type": ["null", "number"]},
    "boolean": {"type": ["null", "boolean"]},
    "date": {"type": ["null", "string"], "format": "date"},
    "timestamp": {"type": ["null", "string"], "format": "date-time"},
    "array": {"type": ["null", "array"], "items": {"type": ["null", "string"]}},
}


@dataclass
class Column:
    """One field of a stream; an object has further ones."""

    type: Type
    seed: str
    """The name at its creation: a renamed field has the same values as before."""
    values: Sequence[Any] | None = None
    """Given to the rows in turn; None for values that follow from the type."""
    columns: dict[str, Column] = field(default_factory=dict)

    def schema(self) -> Json:
        """Return its JSON Schema."""
        if self.type != "object":
            return _SCHEMAS[self.type]
        inner = {name: column.schema() for name, column in self.columns.items()}
        return {"type": ["null", "object"], "properties": inner}

    def value(self, row: int) -> Any:
        """Return the value of a row."""
        if self.type == "object":
            return {name: column.value(row) for name, column in self.columns.items()}
        if self.values is not None:
            given = self.values[row % len(self.values)]
            return str(given) if self.type == "string" and given is not None else given
        made: dict[str, Any] = {
            "string": f"{self.seed} {row}",
            "integer": row,
            "number": row + 0.5,
            "boolean": row % 2 == 0,
            "date": (BORN + timedelta(days=row)).date().isoformat(),
            "timestamp": (BORN + timedelta(hours=row)).strftime(TIME_FORMAT),
            "array": [f"{self.seed} {row}", f"{self.seed} {row + 1}"],
        }
        return made[self.type]


@dataclass
class Stream:
    """Rows with the same fields, each with the time of its latest change."""

    columns: dict[str, Column]
    updated_at: list[datetime]
    is_hidden: bool = False
    """Whether its rows are left out of responses, as for a user without permission to see them."""

    @classmethod
    def of(cls, rows: int, fields: Json) -> Stream:
        """Make a stream; `fields` has types, lists of values, and objects as nested dicts."""
        columns = {"id": Column("integer", "id"), **_columns(fields)}
        columns["updated_at"] = Column("timestamp", "updated_at")
        return cls(columns, [BORN + timedelta(minutes=row) for row in range(rows)])

    def schema(self) -> Json:
        """Return the JSON Schema of its rows."""
        properties = {name: column.schema() for name, column in self.columns.items()}
        return {"type": "object", "properties": properties}

    def page(self, *, since: str | None, start: int, size: int) -> list[Json]:
        """Return rows that changed at `since` or later, in the order of their changes."""
        if self.is_hidden:
            return []
        order = sorted(range(len(self.updated_at)), key=lambda row: (self.updated_at[row], row))
        found = [row for row in order if since is None or self._time(row) >= since]
        return [self._row(row) for row in found[start : start + size]]

    def _time(self, row: int) -> str:
        return self.updated_at[row].strftime(TIME_FORMAT)

    def _row(self, row: int) -> Json:
        values = {name: column.value(row) for name, column in self.columns.items()}
        return {**values, "id": row + 1, "updated_at": self._time(row)}


def _columns(fields: Json) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    for name, of in fields.items():
        if isinstance(of, dict):
            columns[name] = Column("object", name, columns=_columns(of))
        elif isinstance(of, list):
            columns[name] = Column("string", name, values=of)
        else:
            columns[name] = Column(of, name)
    return columns


def born() -> dict[str, dict[str, Stream]]:
    """Return the streams of both APIs as they are at the start."""
    return {
        "shop": {
            "customers": Stream.of(
                60,
                {
                    "name": "string",
                    "email": "string",
                    "vip": "boolean",
                    "since": "date",
                    "address": {"street": "string", "city": ["Oslo", "Lima", "Pune"]},
                },
            ),
            "orders": Stream.of(
                150,
                {
                    "customer_id": "integer",
                    "total": "number",
                    "status": ["paid", "open", "shipped"],
                    "shipping": {"carrier": ["post", "bike"], "fee": "number"},
                },
            ),
        },
        "desk": {
            "tickets": Stream.of(
                120,
                {
                    "subject": "string",
                    "priority": "integer",
                    "tags": "array",
                    "requester": {
                        "name": "string",
                        "contact": {"email": "string", "phone": "string"},
                    },
                },
            ),
            "agents": Stream.of(
                12, {"name": "string", "team": {"name": "string", "floor": "integer"}}
            ),
        },
    }


class Change(BaseModel):
    """A change of one stream; `path` leads to a field, through the objects around it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    api: Literal["shop", "desk"]
    stream: str


class AddField(Change):
    """Add a field, in the object that the path leads to."""

    change: Literal["add"]
    path: list[str] = Field(min_length=1, max_length=8)
    type: Type = "string"
    values: list[Any] | None = Field(default=None, min_length=1)


class DropField(Change):
    """Delete a field and its values."""

    change: Literal["drop"]
    path: list[str] = Field(min_length=1, max_length=8)


class RenameField(Change):
    """Rename a field, which keeps its values."""

    change: Literal["rename"]
    path: list[str] = Field(min_length=1, max_length=8)
    to: str = Field(min_length=1, max_length=63)


class RetypeField(Change):
    """Change the type of a field."""

    change: Literal["retype"]
    path: list[str] = Field(min_length=1, max_length=8)
    type: Type


class Touch(Change):
    """Give the first rows the current time as `updated_at`."""

    change: Literal["touch"]
    count: int = Field(default=1, ge=1)


class HideRows(Change):
    """Hide the rows of a stream, or show them again."""

    change: Literal["hide"]
    hidden: bool = True


AnyChange = Annotated[
    AddField | DropField | RenameField | RetypeField | Touch | HideRows,
    Field(discriminator="change"),
]


def apply(streams: dict[str, dict[str, Stream]], change: AnyChange, *, now: datetime) -> str:
    """Apply a change, and return a sentence about it.

    Raises:
        NotFound: there is no such stream or field.
        Invalid: the field exists already, or every stream must keep it.
    """
    stream = streams[change.api].get(change.stream)
    if stream is None:
        raise NotFound(f"The {change.api} has no stream {change.stream}.")
    if isinstance(change, Touch):
        count = min(change.count, len(stream.updated_at))
        stream.updated_at[:count] = [now] * count
        return f"{count} rows of {change.stream} have changed."
    if isinstance(change, HideRows):
        stream.is_hidden = change.hidden
        return f"The rows of {change.stream} are {'hidden' if change.hidden else 'shown'}."
    *parents, name = change.path
    columns = stream.columns
    for parent in parents:
        if parent not in columns or columns[parent].type != "object":
            raise NotFound(f"{change.stream} has no object {parent} on the path.")
        columns = columns[parent].columns
    if change.path[0] in FIXED:
        raise Invalid(f"Every stream keeps its {change.path[0]}.")
    label = f"{change.stream}.{'.'.join(change.path)}"
    if isinstance(change, AddField):
        if name in columns:
            raise Invalid(f"{label} exists already.")
        columns[name] = Column(change.type, name, values=change.values)
        return f"{label} is new."
    if name not in columns:
        raise NotFound(f"There is no {label}.")
    if isinstance(change, DropField):
        del columns[name]
        return f"{label} is gone."
    if isinstance(change, RetypeField):
        columns[name].type = change.type
        return f"{label} is of type {change.type}."
    if change.to in columns:
        raise Invalid(f"{change.to} exists already.")
    renamed = {change.to if key == name else key: column for key, column in columns.items()}
    columns.clear()
    columns.update(renamed)
    return f"{label} is now {change.to}."
