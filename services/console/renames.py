"""Renames: a removal and an addition that are one change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from services.console.diffs import Json

REMOVALS: Final = ("field_removed", "stream_removed")


def other_halves(changes: Sequence[Json]) -> dict[str, Json]:
    """The other halves of renames by the ids of the removals: as decided, or else as suggested."""
    by_id = {one["id"]: one for one in changes}
    by_half = {_half(one["kind"], one["stream"], one.get("path")): one for one in changes}
    found = {}
    for one in changes:
        if one["kind"] not in REMOVALS:
            continue
        action, became = _action(one), (one.get("decision") or {}).get("became")
        half = None
        if action not in ("", "keep"):
            if became and one["kind"] == "field_removed":
                half = by_half.get(_half("field_added", one["stream"], became))
            elif became:
                stream = {**one["stream"], "name": became[-1]}
                half = by_half.get(_half("stream_added", stream, ()))
        elif (one.get("suggestion") or {}).get("taken_by_approve"):
            half = by_id.get(one.get("pair"))
            half = half if half is not None and _action(half) == action else None
        if half is not None:
            found[one["id"]] = half
    return found


def _action(change: Json) -> str:
    return str((change.get("decision") or {}).get("action") or "")


def with_renames(changes: Iterable[Json], renames: Iterable[Json]) -> list[Json]:
    """The changes of a drift, with each rename as one change that has what it `became`.

    It stands where its first half stood, with the removal's reason and severity.
    """
    shown = {_half(one["kind"], one["stream"], one.get("path")): one for one in changes}
    places = list(shown)
    for one in renames:
        is_field = one["kind"] == "field_renamed"
        stream = one["stream"] if is_field else {**one["stream"], "name": one["became"][-1]}
        gone = _half(one["kind"].replace("renamed", "removed"), one["stream"], one["path"])
        new = _half(one["kind"].replace("renamed", "added"), stream, one["became"] * is_field)
        halves = [half for half in places if half in (gone, new) and half in shown]
        if halves:
            shown[halves[0]] = {**shown[gone if gone in shown else new], **one}
            for rest in halves[1:]:
                del shown[rest]
    return list(shown.values())


def _half(kind: str, stream: Json, path: Iterable[str] | None) -> tuple[Any, ...]:
    return kind, stream.get("namespace") or None, stream["name"], tuple(path or ())
