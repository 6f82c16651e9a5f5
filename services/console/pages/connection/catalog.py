"""The catalog of a connection: its streams, and the fields of one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from services.console.api import Api, CallerApi, Panel, load
from services.console.pages.connection.head import PATH, opened, show
from services.console.pages.connection.selection import Stream, key_of
from services.console.pages.connection.words import mark_of, sentence, to, type_of

router = APIRouter()

_MOST_STREAMS: Final = 50
_MOST_FIELDS: Final = 100
_CHANGES_PAGE: Final = 500
_MOST_CHANGES: Final = 2_000
_SYNC_MODES: Final = {
    ("incremental", "append_dedup"): "Incremental, deduplicated",
    ("incremental", "append"): "Incremental, appended",
    ("full_refresh", "overwrite"): "Full refresh, overwritten",
    ("full_refresh", "append"): "Full refresh, appended",
    ("full_refresh", "overwrite_dedup"): "Full refresh, deduplicated",
}
_WAITING: Final = {
    "added": "New in the source",
    "removed": "Gone in the source",
    "changed": "Changed in the source",
}
_Name = Annotated[str | None, Query(max_length=512)]
_Search = Annotated[str, Query(max_length=200)]


@router.get(f"{PATH}/catalog")
async def catalog(  # noqa: PLR0913, PLR0917 - one for each query parameter
    request: Request,
    api: CallerApi,
    connection_id: UUID,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    stream: _Name = None,
    namespace: _Name = None,
    q: _Search = "",
    after: Annotated[str | None, Query(max_length=8192)] = None,
    fields: _Search = "",
    fields_after: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> Response:
    """Show a page of the streams, and of the fields of one of them, in the newest version."""
    head, panels = await opened(
        api,
        connection_id,
        repairs=api.drift_repair_agent.get(
            "/repairs", connection_id=connection_id, state="proposed", limit=1
        ),
    )
    shown = version or head.version
    search, field_search = q.strip(), fields.strip()
    listed: Panel[Any] = Panel({"items": [], "next": None}, head.problem)
    waiting: Mapping[Stream, list[Mapping[str, Any]]] = {}
    is_partial = False
    if shown is not None:
        found = await load(
            streams=api.orchestrator.get(
                "/connections/{}/catalog-versions/{}/streams",
                connection_id,
                shown,
                search=search or None,
                after=after,
                limit=_MOST_STREAMS,
            ),
            changes=_waiting_changes(api, panels["repairs"]),
        )
        changes, is_partial = found["changes"].value or ([], False)
        listed, waiting = found["streams"], _by_stream(changes)
    streams = (listed.value or {"items": []})["items"]
    chosen = _chosen(streams, stream, namespace)
    fields_panel: Panel[Any] = Panel(None)
    if shown is not None and chosen is not None:
        fields_panel = (
            await load(
                fields=api.orchestrator.get(
                    "/connections/{}/catalog-versions/{}/fields",
                    connection_id,
                    shown,
                    stream=chosen["name"],
                    namespace=chosen["namespace"],
                    search=field_search or None,
                    after=fields_after or None,
                    limit=_MOST_FIELDS,
                )
            )
        )["fields"]
    base = to("connections", connection_id, "catalog")
    state = {"version": version, "q": search, "after": after}
    of_chosen = waiting.get(key_of(chosen), []) if chosen else []
    return show(
        request,
        "connection_catalog.j2",
        head,
        tab="catalog",
        version=shown,
        is_newest=shown == head.version,
        streams=listed,
        outline=[
            (
                one,
                _link(base, state, stream=one["name"], namespace=one.get("namespace")),
                chosen is not None and key_of(one) == key_of(chosen),
                len(waiting.get(key_of(one), ())),
            )
            for one in streams
        ],
        next_url=_link(base, {**state, "after": (listed.value or {}).get("next")}),
        first_url=_link(base, {**state, "after": None}),
        search=search,
        is_first=after is None,
        chosen=chosen,
        mode=_mode(chosen),
        fields=fields_panel,
        rows=_rows((fields_panel.value or {"items": []})["items"], of_chosen),
        field_search=field_search,
        fields_after=fields_after,
        fields_url=_fields_url(base, state, chosen, field_search),
        more_fields_url=_fields_url(
            base, state, chosen, field_search, after=(fields_panel.value or {}).get("next")
        ),
        kept={name: value for name, value in state.items() if value},
        waiting=len(of_chosen),
        is_partial=is_partial,
        repair_id=_repair_id(panels["repairs"]),
    )


def _repair_id(repairs: Panel[Any]) -> str | None:
    items = (repairs.value or {"items": []})["items"]
    return items[0]["id"] if items else None


async def _waiting_changes(api: Api, repairs: Panel[Any]) -> tuple[list[Mapping[str, Any]], bool]:
    """The changes that wait for a decision, and whether the repair has more than were read."""
    repair_id = _repair_id(repairs)
    if repair_id is None:
        return [], False
    changes: list[Mapping[str, Any]] = []
    after = None
    for _ in range(_MOST_CHANGES // _CHANGES_PAGE):
        page = await api.drift_repair_agent.get(
            "/repairs/{}/changes", repair_id, after=after, limit=_CHANGES_PAGE
        )
        changes += [one for one in page["items"] if one.get("decision") is None]
        after = page["next"]
        if after is None:
            break
    return changes, after is not None


def _by_stream(
    changes: Iterable[Mapping[str, Any]],
) -> Mapping[Stream, list[Mapping[str, Any]]]:
    found: dict[Stream, list[Mapping[str, Any]]] = {}
    for change in changes:
        found.setdefault(key_of(change["stream"]), []).append(change)
    return found


def _chosen(
    streams: list[dict[str, Any]], name: str | None, namespace: str | None
) -> dict[str, Any] | None:
    """The stream of the address, else the first of the page; another page may have it."""
    if name is None:
        return streams[0] if streams else None
    for one in streams:
        if key_of(one) == (namespace or "", name):
            return one
    return {"name": name, "namespace": namespace}


def _link(base: str, state: Mapping[str, Any], **more: Any) -> str:
    query = {name: value for name, value in {**state, **more}.items() if value}
    return f"{base}?{urlencode(query)}" if query else base


def _fields_url(
    base: str,
    state: Mapping[str, Any],
    chosen: Mapping[str, Any] | None,
    search: str,
    *,
    after: str | None = None,
) -> str:
    if chosen is None:
        return base
    of_stream = {"stream": chosen["name"], "namespace": chosen.get("namespace")}
    return _link(base, state, **of_stream, fields=search, fields_after=after)


def _mode(stream: Mapping[str, Any] | None) -> str | None:
    if stream is None or not stream.get("sync_mode"):
        return None
    pair = (stream["sync_mode"], stream.get("destination_sync_mode") or "")
    words = " and ".join(sentence(one) for one in pair if one)
    return _SYNC_MODES.get(pair, words)


def _rows(
    fields: Iterable[Mapping[str, Any]], changes: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The fields with their types in words, and what waits for a decision about each."""
    waiting = {
        change["path"][0]: mark_of(change["kind"]) for change in changes if change.get("path")
    }
    nested = Counter(change["path"][0] for change in changes if len(change.get("path") or ()) > 1)
    rows = []
    for one in fields:
        notes = []
        if one["is_key"]:
            notes.append("Primary key")
        if one["is_cursor"]:
            notes.append("Cursor")
        kind = "changed" if nested[one["name"]] else waiting.get(one["name"])
        rows.append(
            {
                "name": one["name"],
                "type": type_of(one["type"]),
                "selected": one["selected"],
                "notes": notes,
                "waiting": _WAITING.get(kind or ""),
            }
        )
    return rows
