"""Catalogs in three forms: as a connector offers them, as the API shows them, as a read needs them.

A large org's catalog is 24 MB, so a stream's JSON schema stays raw bytes wherever possible.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
import orjson
from msgspec import Raw

from local.airbyte import mappers
from local.airbyte.errors import Refusal, uncaught, unreadable
from local.airbyte.releases import MOST_STREAMS, Release

MOST_FIELDS = 20_000
SYNC_MODES = frozenset({"full_refresh", "incremental"})
DESTINATION_SYNC_MODES = frozenset(
    {"append", "overwrite", "append_dedup", "overwrite_dedup", "update", "soft_delete"}
)
CONFIG_MEMBERS = (
    "syncMode",
    "cursorField",
    "destinationSyncMode",
    "primaryKey",
    "aliasName",
    "selected",
    "suggested",
    "fieldSelectionEnabled",
    "selectedFields",
)
"""What a stream's configuration has in every release."""

NEWER_CONFIG_MEMBERS = ("includeFiles", "destinationObjectName", "namespace")
"""What it has in addition since 2.0; `hashedFields` and `mappers` are older."""

Json = dict[str, Any]


class ProtocolStream(msgspec.Struct):
    """A stream as connectors describe it."""

    name: str
    json_schema: Raw
    supported_sync_modes: list[str] = []
    source_defined_cursor: bool | None = None
    default_cursor_field: list[str] | None = None
    source_defined_primary_key: list[list[str]] | None = None
    namespace: str | None = None
    is_resumable: bool | None = None
    is_file_based: bool | None = None


class ProtocolCatalog(msgspec.Struct):
    """The catalog a connector offers."""

    streams: list[ProtocolStream]


class RawCatalog(msgspec.Struct):
    """The same catalog with undecoded streams."""

    streams: list[Raw]


class CatalogMessage(msgspec.Struct):
    """The CATALOG message that ends a discovery; its catalog stays byte for byte as written."""

    type: str
    catalog: Raw


_protocol = msgspec.json.Decoder(ProtocolCatalog)
_raw = msgspec.json.Decoder(RawCatalog)
_message = msgspec.json.Decoder(CatalogMessage)


def extract_catalog(line: bytes) -> bytes:
    """Extract the catalog of a CATALOG line, byte for byte."""
    return bytes(_message.decode(line).catalog)


def content_id(protocol: bytes) -> UUID:
    """Derive a catalog's id from its content, ignoring key order and white space."""
    digest = hashlib.blake2b(digest_size=16)
    for stream in _raw.decode(protocol).streams:
        digest.update(orjson.dumps(orjson.loads(bytes(stream)), option=orjson.OPT_SORT_KEYS))
        digest.update(b"\n")
    return UUID(bytes=digest.digest(), version=5)


def discovered(protocol: bytes, *, suggested: Collection[str], release: Release) -> bytes:
    """Build the syncCatalog of a discovery, with the configuration Airbyte proposes per stream."""
    streams = _protocol.decode(protocol).streams
    pairs = [
        proposed(
            _in_api(stream),
            selected=len(streams) == 1 or stream.name in suggested,
            release=release,
        )
        for stream in streams
    ]
    return msgspec.json.encode({"streams": pairs})


def _in_api(stream: ProtocolStream) -> Json:
    return {
        "name": stream.name,
        "jsonSchema": stream.json_schema,
        "supportedSyncModes": stream.supported_sync_modes,
        "sourceDefinedCursor": stream.source_defined_cursor,
        "defaultCursorField": stream.default_cursor_field,
        "sourceDefinedPrimaryKey": stream.source_defined_primary_key,
        "namespace": stream.namespace,
        "isResumable": stream.is_resumable,
        "isFileBased": stream.is_file_based,
    }


def proposed(stream: Json, *, selected: bool, release: Release) -> Json:
    """Pair a discovered stream with the configuration that Airbyte proposes for it."""
    cursor = stream.get("defaultCursorField") or []
    key = stream.get("sourceDefinedPrimaryKey") or []
    modes = ("full_refresh", "overwrite")
    if stream.get("sourceDefinedCursor") and key:
        modes = ("incremental", "append_dedup")
    elif stream.get("sourceDefinedCursor") and "full_refresh" not in stream["supportedSyncModes"]:
        modes = ("incremental", "append")
    config = {
        "syncMode": modes[0],
        "destinationSyncMode": modes[1],
        "cursorField": cursor,
        "primaryKey": key,
        "aliasName": _alias(stream["name"]),
        "selected": selected,
        "suggested": selected,
        "fieldSelectionEnabled": False,
        "selectedFields": [],
    }
    return {"stream": stream_read(stream, release), "config": config_read(config, release)}


def stream_read(stream: Mapping[str, Any], release: Release) -> Json:
    """Represent a stream as a release does."""
    members = {name: value for name, value in stream.items() if value is not None}
    members.setdefault("defaultCursorField", [])
    members.setdefault("sourceDefinedPrimaryKey", [])
    if release.since(2):
        members.setdefault("isFileBased", False)
    else:
        members.pop("isFileBased", None)
    return members


def config_read(config: Mapping[str, Any], release: Release) -> Json:
    """Represent a stream's configuration as a release does."""
    members = {name: value for name, value in config.items() if value is not None}
    found: Json = {}
    if mappers.knows_hashed_fields(release):
        found["hashedFields"] = members.pop("hashedFields", [])
    if mappers.knows_mappers(release):
        found["mappers"] = members.pop("mappers", [])
        found["hashedFields"] = mappers.hashed_fields(found["mappers"])
    for name in ("hashedFields", "mappers"):
        members.pop(name, None)
    if not release.since(2):
        members = {name: value for name, value in members.items() if name in CONFIG_MEMBERS}
    return found | members


def _alias(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", name)


def stored_streams(catalog: Json, release: Release, held: Sequence[Json] = ()) -> list[Json]:
    """Reduce a syncCatalog to what Airbyte stores: selected streams with their selected fields.

    `held` are the connection's current streams.

    Raises:
        Refusal: 400, 422 or 500, as Airbyte refuses such a catalog.
    """
    pairs = [pair for pair in catalog.get("streams") or [] if _is_selected(pair)]
    known = {key_of(pair["stream"]): pair["config"].get("mappers") or [] for pair in held}
    streams = [_stored_stream(pair, known, release) for pair in pairs]
    times = Counter(key_of(pair["stream"]) for pair in streams)
    doubled = sorted({name for (_, name), number in times.items() if number > 1})
    if doubled:
        raise uncaught(f"Catalog contains duplicate stream names: {', '.join(doubled)}")
    if release.is_cloud and len(streams) > MOST_STREAMS:
        raise Refusal(400, f"A connection has at most {MOST_STREAMS} streams, not {len(streams)}.")
    fields = sum(len(properties(pair["stream"])) for pair in streams)
    if fields > MOST_FIELDS:
        raise Refusal(
            400,
            f"Total number of selected fields ({fields}) is greater than the limit ({MOST_FIELDS}) "
            "configured for this workspace.",
        )
    return streams


def _is_selected(pair: Any) -> bool:
    if not isinstance(pair, dict) or not isinstance(pair.get("config"), dict):
        raise unreadable("a stream has no config.")
    if pair["config"].get("selected") is None:
        raise uncaught("getSelected() is null", "java.lang.NullPointerException")
    return bool(pair["config"]["selected"])


def _stored_stream(
    pair: Json, known: Mapping[tuple[str | None, str], list[Json]], release: Release
) -> Json:
    stream, given = pair.get("stream"), pair["config"]
    if not isinstance(stream, dict) or not isinstance(stream.get("name"), str):
        raise unreadable("a stream has no name.")
    stream = stream_read(stream, release)
    config = {
        "syncMode": _enum(given, "syncMode", SYNC_MODES),
        "destinationSyncMode": _enum(given, "destinationSyncMode", DESTINATION_SYNC_MODES),
        "cursorField": given.get("cursorField") or [],
        "primaryKey": given.get("primaryKey") or [],
        "aliasName": _alias(stream["name"]),
        "selected": True,
        "suggested": False,
        "fieldSelectionEnabled": bool(given.get("fieldSelectionEnabled")),
        "selectedFields": [],
        **{name: given.get(name) for name in ("hashedFields", *NEWER_CONFIG_MEMBERS)},
    }
    if config["fieldSelectionEnabled"]:
        wanted = _selected_names(stream, config, given.get("selectedFields"))
        schema = stream["jsonSchema"]
        cut = {name: of for name, of in schema["properties"].items() if name in wanted}
        stream["jsonSchema"] = {**schema, "properties": cut}
        config["selectedFields"] = [{"fieldPath": [name]} for name in cut]
    config["mappers"] = mappers.stored(given, stream, known.get(key_of(stream), []), release)
    return {"stream": stream, "config": config_read(config, release)}


def _enum(config: Json, name: str, values: Collection[str]) -> str:
    value = str(config.get(name, "")).lower()
    if value not in values:
        raise unreadable(f"{name} has no such value.")
    return value


def _selected_names(stream: Json, config: Json, selected: list[Json] | None) -> set[str]:
    if selected is None:
        raise Refusal(422, "Requested field selection but no selected fields provided")
    if "properties" not in (stream.get("jsonSchema") or {}):
        raise Refusal(422, "Requested field selection but no node properties found")
    names = set()
    for field in selected:
        path = field.get("fieldPath")
        if not path:
            raise Refusal(422, "Selected field path cannot be empty")
        if len(path) > 1:
            raise uncaught("Nested field selection not supported")
        names.add(path[0])
    cursor = config["cursorField"]
    if config["syncMode"] == "incremental" and cursor and cursor[0] not in names:
        raise Refusal(422, "Cursor field cannot be de-selected in INCREMENTAL syncs")
    if config["destinationSyncMode"].endswith("_dedup") and any(
        path and path[0] not in names for path in config["primaryKey"]
    ):
        raise Refusal(422, "Primary key field cannot be de-selected in DEDUP mode")
    return names


def properties(stream: Mapping[str, Any]) -> Json:
    """Return the top-level fields of a stream in API form, with their schemas."""
    found: Json = (stream.get("jsonSchema") or {}).get("properties") or {}
    return found


def configured(streams: Iterable[Mapping[str, Any]]) -> Json:
    """Build the ConfiguredAirbyteCatalog that a connector reads with."""
    return {"streams": [_configure(pair["stream"], pair["config"]) for pair in streams]}


def _configure(stream: Mapping[str, Any], config: Mapping[str, Any]) -> Json:
    described = {
        "name": stream["name"],
        "json_schema": stream.get("jsonSchema") or {},
        "supported_sync_modes": stream.get("supportedSyncModes") or ["full_refresh"],
        "source_defined_cursor": stream.get("sourceDefinedCursor"),
        "default_cursor_field": stream.get("defaultCursorField"),
        "source_defined_primary_key": stream.get("sourceDefinedPrimaryKey"),
        "namespace": stream.get("namespace"),
    }
    destination_mode = config["destinationSyncMode"].replace("overwrite_dedup", "overwrite")
    return {
        "stream": {key: value for key, value in described.items() if value is not None},
        "sync_mode": config["syncMode"],
        "destination_sync_mode": destination_mode,
        "cursor_field": config["cursorField"],
        "primary_key": config["primaryKey"],
    }


def streams_with_another_mode(
    before: Sequence[Json], after: Sequence[Json]
) -> list[tuple[str | None, str]]:
    """Return (namespace, name) of the streams whose syncMode the two catalogs differ in."""
    modes = {key_of(pair["stream"]): pair["config"]["syncMode"] for pair in before}
    return [
        key
        for pair in after
        if modes.get(key := key_of(pair["stream"]), mode := pair["config"]["syncMode"]) != mode
    ]


def read_from_start(
    streams: Sequence[Json], refreshed: Iterable[Json]
) -> list[tuple[str | None, str]]:
    """Return (namespace, name) of the streams whose state a job's first attempt deletes.

    These are the refreshed ones (descriptors) and those that are read in full_refresh.
    """
    full = [pair["stream"] for pair in streams if pair["config"]["syncMode"] == "full_refresh"]
    return [key_of(stream) for stream in (*full, *refreshed)]


def key_of(stream: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return the namespace and the name that identify a stream."""
    return stream.get("namespace"), stream["name"]
