"""Parts of a diff: the changes of one stream, a page of changes, and the counts per stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Protocol, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict

from shared.domain.catalog import StreamId

_NO_NUL = r"^[^\x00]*$"

OnlyStream = Annotated[
    str | None,
    Query(alias="stream", max_length=512, pattern=_NO_NUL, description="Only this stream"),
]
StreamName = Annotated[
    str,
    Query(max_length=512, pattern=_NO_NUL, description="The stream's name", examples=["Account"]),
]
Namespace = Annotated[
    str | None,
    Query(max_length=512, pattern=_NO_NUL, description="The stream's namespace, if it has one"),
]
FirstChange = Annotated[
    int, Query(alias="after", ge=0, le=2**31 - 1, description="`next` of the previous page")
]
MostChanges = Annotated[
    int | None,
    Query(alias="limit", ge=1, le=500, description="Maximum number of changes; by default all"),
]


class _Changed(Protocol):
    @property
    def kind(self) -> str: ...

    @property
    def stream(self) -> StreamId: ...


Item = TypeVar("Item")


StreamChange = Literal["added", "removed", "changed"]


class StreamChanges(BaseModel):
    """What a diff has about one stream."""

    stream: dict[str, str | None]
    change: StreamChange
    """Whether the stream itself is new, is gone, or differs."""
    schema_changes: int
    config_changes: int = 0
    by_kind: dict[str, int]


class DiffSummary(BaseModel):
    """The streams that differ, by namespace and name; `next` is the next page's `after`.

    A page may have fewer items than its `limit` although there is a next one: streams that differ
    in nothing but descriptions are left out.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {
                            "stream": {"namespace": None, "name": "Account"},
                            "change": "changed",
                            "schema_changes": 2,
                            "config_changes": 1,
                            "by_kind": {
                                "field_added": 1,
                                "field_removed": 1,
                                "sync_mode_changed": 1,
                            },
                        }
                    ],
                    "next": None,
                }
            ]
        }
    )

    items: list[StreamChanges]
    next: str | None = None


def only(stream: str | None, namespace: str | None) -> StreamId | None:
    """The stream that a request names; None if it names none."""
    return None if stream is None else StreamId(namespace or None, stream)


def counted(
    schema_changes: Iterable[_Changed], config_changes: Iterable[_Changed] = ()
) -> list[StreamChanges]:
    """The counts per stream, by namespace and name."""
    kinds: dict[StreamId, tuple[Counter[str], Counter[str]]] = {}
    for at, changes in enumerate((schema_changes, config_changes)):
        for change in changes:
            counters = kinds.setdefault(change.stream, (Counter(), Counter()))
            counters[at][change.kind] += 1
    return [
        StreamChanges(
            stream={"namespace": stream.namespace, "name": stream.name},
            change=_change_of(schema, config),
            schema_changes=schema.total(),
            config_changes=config.total(),
            by_kind=dict(sorted((schema + config).items())),
        )
        for stream, (schema, config) in sorted(kinds.items(), key=lambda one: one[0].order)
    ]


def _change_of(
    schema: Counter[str], config: Counter[str]
) -> Literal["added", "removed", "changed"]:
    if "stream_added" in schema or "stream_selected" in config:
        return "added"
    if "stream_removed" in schema or "stream_deselected" in config:
        return "removed"
    return "changed"


def window(
    changes: Sequence[Item], *, after: int, limit: int | None
) -> tuple[Sequence[Item], str | None]:
    """A page of changes or fields, and the `after` of the next page; all without a limit."""
    if limit is None:
        return changes[after:], None
    end = after + limit
    return changes[after:end], str(end) if end < len(changes) else None


def members(changes: Iterable[Any], of: type[Any]) -> list[Any]:
    """The changes that are of one class."""
    return [change for change in changes if isinstance(change, of)]
