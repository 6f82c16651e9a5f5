"""The catalog of a large Salesforce org, as Airbyte's discovery returns it."""

from __future__ import annotations

from typing import Any

import orjson

from shared.domain import catalog

STREAMS = 1_500
FIELDS = 300
SELECTED = 50
CHANGED = 5
EVERY_MODE = ("append", "overwrite", "append_dedup", "overwrite_dedup")


def discovered(*, streams: int = STREAMS, fields: int = FIELDS) -> bytes:
    """Build the discovered catalog: every stream of the org, none selected."""
    types: tuple[dict[str, Any], ...] = (
        {"type": ["string", "null"]},
        {"type": ["string", "null"], "format": "date-time"},
        {"type": ["boolean", "null"]},
        {"type": ["number", "null"]},
        {"type": ["integer", "null"]},
        {"type": ["string", "null"], "format": "date"},
    )
    keys = {"Id": types[0], "SystemModstamp": types[1]}

    def pair(number: int) -> dict[str, Any]:
        name = f"Custom_Object_{number:04}__c"
        more = {f"Custom_Field_{n:03}__c": types[n % len(types)] for n in range(fields - 2)}
        return {
            "stream": {
                "name": name,
                "jsonSchema": {
                    "$schema": "http://json-schema.org/draft-07/schema#",
                    "type": "object",
                    "additionalProperties": True,
                    "properties": keys | more,
                },
                "supportedSyncModes": ["full_refresh", "incremental"],
                "sourceDefinedCursor": True,
                "defaultCursorField": ["SystemModstamp"],
                "sourceDefinedPrimaryKey": [["Id"]],
                "isResumable": True,
                "isFileBased": False,
            },
            "config": {
                "syncMode": "incremental",
                "cursorField": ["SystemModstamp"],
                "destinationSyncMode": "append_dedup",
                "primaryKey": [["Id"]],
                "aliasName": name,
                "selected": False,
                "suggested": False,
                "fieldSelectionEnabled": False,
                "selectedFields": [],
                "hashedFields": [],
                "mappers": [],
            },
        }

    return orjson.dumps({"streams": [pair(number) for number in range(streams)]})


def selected(document: bytes) -> bytes:
    """Build the catalog of a connection that syncs `SELECTED` streams of this discovery."""
    streams = catalog.parse(document).streams
    names = [stream.id.name for stream in streams[:: len(streams) // SELECTED]]
    chosen = catalog.choose(document, streams=names[:SELECTED], destination_sync_modes=EVERY_MODE)
    return catalog.dump(chosen)


def drifted(document: bytes, number: int = 7) -> bytes:
    """Rename one field in `CHANGED` streams; `number` becomes part of the new name."""
    renamed = b'"Renamed_Field_%d__c":' % number
    return document.replace(b'"Custom_Field_007__c":', renamed, CHANGED)
