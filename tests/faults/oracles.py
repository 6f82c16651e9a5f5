"""Invariants of registry, Airbyte and event stream that must hold after every fault."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import orjson
from redis.asyncio import Redis

from shared.domain import catalog as catalogs
from shared.domain.cooperative import Stepwise
from shared.outbox import STREAM
from tests.fakes.airbyte_server import AirbyteServer

_MARKER = re.compile(r"\[aam:[0-9a-f-]{36}\]$")
_FIELDS = {"event_id", "seq", "type", "connection_id", "ref", "status", "version", "code", "at"}


async def versions_are_whole(sql: Any) -> list[str]:
    """V: each connection's versions are 1..n, and n is its current version."""
    rows = await sql.fetch("""
        SELECT c.id, c.catalog_version, count(v.*) AS n, min(v.version_number) AS least,
            max(v.version_number) AS most, count(DISTINCT v.version_number) AS different
        FROM connections c LEFT JOIN sync_catalog_versions v ON v.connection_id = c.id GROUP BY c.id
    """)
    return [
        f"V: {row['id']} has {row['n']} versions {row['least']}..{row['most']}, "
        f"head {row['catalog_version']}"
        for row in rows
        if row["n"] != row["catalog_version"]
        or (row["n"] and (row["least"], row["most"], row["different"]) != (1, row["n"], row["n"]))
    ]


async def nothing_is_stuck(sql: Any) -> list[str]:
    """H: every operation has ended, and no connection is PENDING or HEALING."""
    rows = await sql.fetch(
        "SELECT id, kind, status, step FROM operations WHERE status IN ('running', 'undoing')"
    )
    stuck = [f"H: {row['kind']} {row['id']} is {row['status']} at {row['step']}" for row in rows]
    rows = await sql.fetch(
        "SELECT id, status FROM connections WHERE status IN ('HEALING', 'PENDING')"
    )
    return stuck + [f"H: connection {row['id']} is {row['status']}" for row in rows]


async def nothing_is_orphaned(sql: Any, airbyte: AirbyteServer) -> list[str]:
    """O: Airbyte objects with AAM's marker correspond one-to-one to live registry rows."""
    rows = await sql.fetch("""
        SELECT airbyte_source_id::text AS source, airbyte_connection_id::text AS connection
        FROM connections WHERE archived_at IS NULL AND airbyte_connection_id IS NOT NULL
            AND NOT imported AND (status <> 'FAILED' OR failure_code <> 'upstream_missing')
    """)
    found = []
    for kind, held in (("source", airbyte.sources), ("connection", airbyte.connections)):
        marked = {
            id_
            for id_, one in held.items()
            if _MARKER.search(one["name"]) and one.get("status") != "deprecated"
        }
        ours = [row[kind] for row in rows]
        found += [f"O: {kind} {id_} is an orphan" for id_ in marked - set(ours)]
        found += [f"O: {kind} {id_} is missing" for id_ in set(ours) - marked]
        found += [f"O: {kind} {id_} is used twice" for id_ in set(ours) if ours.count(id_) > 1]
    return found


async def active_means_held(sql: Any, airbyte: AirbyteServer) -> list[str]:
    """U: for each ACTIVE connection Airbyte has the current catalog version."""
    rows = await sql.fetch("""
        SELECT c.airbyte_connection_id::text AS id, v.fingerprint FROM connections c
        JOIN sync_catalog_versions v
            ON v.connection_id = c.id AND v.version_number = c.catalog_version
        WHERE c.status = 'ACTIVE' AND c.archived_at IS NULL
    """)
    found = []
    for row in rows:
        held = airbyte.connections.get(row["id"])
        if held is None:
            found.append(f"U: Airbyte has no connection {row['id']}")
        elif _meaning(held["syncCatalog"]) != row["fingerprint"]:
            found.append(f"U: connection {row['id']} does not hold its head")
    return found


def _meaning(catalog: Any) -> str:
    steps = catalogs.document_fingerprint
    assert isinstance(steps, Stepwise)
    return str(steps(orjson.dumps(catalog)))


async def events_are_published(sql: Any, redis: Redis) -> list[str]:
    """E: each outbox event is in the stream, in order per connection, with no other fields."""
    rows = await sql.fetch("SELECT event_id::text, connection_id::text, seq FROM events")
    seen: dict[str, dict[str, str]] = {}
    order: dict[str, list[int]] = defaultdict(list)
    found = []
    for _, fields in await redis.xrange(STREAM) or []:
        event = {str(name): str(value) for name, value in (fields or {}).items()}
        if set(event) != _FIELDS:
            found.append(f"E: an event has the fields {sorted(event)}")
        if event["event_id"] not in seen:
            order[event["connection_id"]].append(int(event["seq"]))
        elif seen[event["event_id"]] != event:
            found.append(f"E: {event['event_id']} came twice and differs")
        seen[event["event_id"]] = event
    found += [
        f"E: {row['event_id']} was not published" for row in rows if row["event_id"] not in seen
    ]
    return found + [
        f"E: {connection} was published in the order {seqs}"
        for connection, seqs in order.items()
        if seqs != sorted(seqs)
    ]


async def violations(sql: Any, airbyte: AirbyteServer, redis: Redis | None) -> list[str]:
    """List all violated invariants."""
    found = [
        *await versions_are_whole(sql),
        *await nothing_is_stuck(sql),
        *await nothing_is_orphaned(sql, airbyte),
        *await active_means_held(sql, airbyte),
    ]
    return found if redis is None else found + await events_are_published(sql, redis)
