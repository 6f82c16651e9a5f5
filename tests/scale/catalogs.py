"""What the simulated sources offer: a few catalogs of realistic size, each in several revisions.

A source has one of `TEMPLATES` catalogs, and starts at a revision that depends on its number. Each
revision adds a field to a stream that its connections sync, or removes one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from uuid import UUID

import orjson

from services.drift_repair_agent.repairs import planned_changes
from services.drift_repair_agent.repairs.planned_changes import PlannedChange
from services.drift_repair_agent.repairs.policy import Reaction
from shared.domain import catalog, drift
from tests.scale import rates

TEMPLATES: Final = 16
REVISIONS: Final = 14
"""More than a source reaches in the history and in the simulation together."""
_FIRST_REVISION: Final = 2
_SPREAD: Final = 5
_SYNCED: Final = tuple(f"synced_{i}" for i in range(int(rates.SYNCED_STREAMS.value)))
_TYPES: Final[tuple[dict[str, Any], ...]] = (
    {"type": ["null", "string"], "description": "A label that people gave the record."},
    {"type": ["null", "integer"], "description": "How many of them there are."},
    {"type": ["null", "number"], "description": "An amount in the currency of the account."},
    {"type": ["null", "string"], "format": "date-time", "airbyte_type": "timestamp_with_timezone"},
    {"type": ["null", "boolean"]},
)


def template_of(source: int) -> int:
    """The catalog of a source, by its number from 1."""
    return source % TEMPLATES


def revision_of(source: int) -> int:
    """The revision that a source has reached at the end of the history: four on average."""
    return _FIRST_REVISION + source % _SPREAD


REVISION_SQL: Final = f"({_FIRST_REVISION} + n % {_SPREAD})"
"""The same in SQL."""


_LARGEST_EVERY: Final = round(1 / rates.LARGEST_WORKSPACE.value)


def workspace_of(source: int, workspaces: int) -> int:
    """The workspace of a source: number 0 is the largest, and the others are equal."""
    return 0 if source % _LARGEST_EVERY == 0 else 1 + source % (workspaces - 1)


WORKSPACE_SQL: Final = f"""
    CASE WHEN n % {_LARGEST_EVERY} = 0 THEN 0 ELSE 1 + n % ({{workspaces}} - 1) END
"""
"""The same in SQL."""


def is_removal(template: int, revision: int) -> bool:
    """Whether a revision removes a field; one in four does."""
    return (template + revision) % round(1 / rates.REMOVALS.value) == 0


@dataclass(frozen=True, slots=True)
class Revision:
    """A catalog at one revision, with what the registry stores of it."""

    document: bytes
    """What a discovery returns."""
    synced: bytes
    """The catalog of its connections."""
    fingerprint: str
    raw_hashes: bytes
    stream_hashes: bytes
    bodies: dict[bytes, tuple[str, str]]
    """Name and body of each stream, by its hash."""
    drift: str
    """The changes since the revision before, as a drift has them."""
    repair: str
    """The same as a repair has them, without decisions."""


def object_id(number: int, kind: str, of: int = 0) -> UUID:
    """The id of a simulated object; `of` tells objects of one number apart. See `number_of`."""
    start = hashlib.md5(f"{kind}{number}.{of}".encode(), usedforsecurity=False).hexdigest()[:20]
    return UUID(hex=f"{start}{number:012x}")


ID_SQL: Final = """
    CREATE FUNCTION scale.object_id(number bigint, kind text, of bigint DEFAULT 0) RETURNS uuid
    LANGUAGE sql IMMUTABLE AS $id$
        SELECT CAST(
            substr(md5(kind || number || '.' || of), 1, 20) || lpad(to_hex(number), 12, '0') AS uuid
        )
    $id$
"""
"""The same in SQL."""


def number_of(object_id: str) -> int:
    """The number in an `object_id`."""
    return int(object_id[24:36], 16)


@cache
def revision(template: int, number: int) -> Revision:
    """One catalog at one revision."""
    streams = [
        _stream(template, number, index) for index in range(int(rates.OFFERED_STREAMS.value))
    ]
    document = orjson.dumps({"streams": streams})
    slices = catalog.scan(document)
    hashes = [catalog.canonical_hash(one) for one in slices]
    chosen = catalog.choose(
        document, streams=_SYNCED, destination_sync_modes=("append_dedup", "append", "overwrite")
    )
    synced = catalog.dump(chosen)
    changes: list[tuple[drift.Change, drift.Verdict]] = []
    if number:
        before = revision(template, number - 1)
        heads = catalog.parse(before.synced).by_id()
        changes = [
            (change, drift.severity(change, heads.get(change.stream)))
            for change in drift.diff(before.document, document)
        ]
    return Revision(
        document,
        synced,
        catalog.document_fingerprint(synced),
        b"".join(catalog.raw_hash(one) for one in slices),
        b"".join(hashes),
        {
            digest: (stream["stream"]["name"], bytes(one).decode())
            for digest, stream, one in zip(hashes, streams, slices, strict=True)
        },
        orjson.dumps([drift.written(*pair) for pair in changes]).decode(),
        planned_changes.write(
            PlannedChange(
                id=str(index + 1),
                change=change,
                verdict=verdict,
                reaction=Reaction.PROPOSE if "removed" in change.kind else Reaction.APPLY,
            )
            for index, (change, verdict) in enumerate(changes)
        ),
    )


def _stream(template: int, revision_: int, index: int) -> dict[str, Any]:
    """One stream; only the first one differs between revisions."""
    name = _SYNCED[index] if index < len(_SYNCED) else f"offered_{index}"
    fields = {
        f"field_{template}_{number}": _TYPES[(template + number) % len(_TYPES)]
        for number in range(int(rates.FIELDS.value))
    }
    if index == 0:
        for past in range(1, revision_ + 1):
            if is_removal(template, past):
                del fields[f"field_{template}_{past}"]
            else:
                fields[f"added_{past}"] = _TYPES[0]
    properties = {
        "id": {"type": ["null", "string"]},
        **fields,
        "updated_at": {"type": ["null", "string"], "format": "date-time"},
    }
    return {
        "stream": {
            "name": name,
            "jsonSchema": {"type": "object", "properties": properties},
            "supportedSyncModes": ["full_refresh", "incremental"],
            "sourceDefinedCursor": True,
            "defaultCursorField": ["updated_at"],
            "sourceDefinedPrimaryKey": [["id"]],
        },
        "config": {
            "syncMode": "incremental",
            "cursorField": ["updated_at"],
            "destinationSyncMode": "append_dedup",
            "primaryKey": [["id"]],
            "aliasName": name,
            "selected": index < len(_SYNCED),
        },
    }
