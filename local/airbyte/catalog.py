"""Catalogs in three forms: as a connector offers them, as the API shows them, as a read needs them.

A large org's catalog is 24 MB, so a stream's JSON schema stays raw bytes wherever possible.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import orjson
from msgspec import UNSET, Raw, UnsetType

from local.airbyte.settings import Flavour

MOST_FIELDS = 20_000
SYNC_MODES = frozenset({"full_refresh", "incremental"})
DESTINATION_SYNC_MODES = ("overwrite", "append", "append_dedup", "overwrite_dedup")
"""The writer's sync modes, as `supportedDestinationSyncModes` lists them."""

Json = dict[str, Any]
T = TypeVar("T")


class InvalidCatalog(Exception):
    """The catalog is invalid: Airbyte's JsonValidationException, 422."""


class DuplicateStreams(Exception):
    """Two streams have the same name and namespace, which Airbyte answers with a 500."""


class NotWritable(Exception):
    """The local writer cannot write this catalog, or would mix up streams or columns: 400."""


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


class ApiStream(msgspec.Struct, rename="camel", omit_defaults=True):
    """A stream as the API shows it."""

    name: str
    json_schema: Raw
    supported_sync_modes: list[str]
    default_cursor_field: list[str]
    source_defined_primary_key: list[list[str]]
    source_defined_cursor: bool | UnsetType = UNSET
    namespace: str | UnsetType = UNSET
    is_resumable: bool | UnsetType = UNSET
    is_file_based: bool | UnsetType = UNSET


class ApiConfig(msgspec.Struct, rename="camel", omit_defaults=True):
    """How to sync a stream, as a discovery suggests it."""

    sync_mode: str
    destination_sync_mode: str
    cursor_field: list[str]
    primary_key: list[list[str]]
    alias_name: str
    selected: bool
    suggested: bool
    field_selection_enabled: bool
    selected_fields: list[Json]
    hashed_fields: list[Json] | UnsetType = UNSET
    mappers: list[Json] | UnsetType = UNSET


class ApiPair(msgspec.Struct):
    """One entry of a syncCatalog."""

    stream: ApiStream
    config: ApiConfig


class ApiCatalog(msgspec.Struct):
    """A syncCatalog."""

    streams: list[ApiPair]


_protocol = msgspec.json.Decoder(ProtocolCatalog)
_raw = msgspec.json.Decoder(RawCatalog)
_message = msgspec.json.Decoder(CatalogMessage)


def offered_by(line: bytes) -> bytes:
    """Extract the catalog of a CATALOG line, byte for byte."""
    return bytes(_message.decode(line).catalog)


def content_id(protocol: bytes) -> UUID:
    """Derive a catalog's id from its content, ignoring key order and white space."""
    digest = hashlib.blake2b(digest_size=16)
    for stream in _raw.decode(protocol).streams:
        digest.update(orjson.dumps(orjson.loads(bytes(stream)), option=orjson.OPT_SORT_KEYS))
        digest.update(b"\n")
    return UUID(bytes=digest.digest(), version=5)


def shown(protocol: bytes, *, suggested: Collection[str], flavour: Flavour) -> bytes:
    """Build the syncCatalog of a discovery, with the configuration Airbyte suggests per stream."""
    streams = _protocol.decode(protocol).streams
    alone = len(streams) == 1
    modern = flavour is Flavour.COMMANDS
    pairs = [
        _suggest(stream, selected=alone or stream.name in suggested, modern=modern)
        for stream in streams
    ]
    return msgspec.json.encode(ApiCatalog(pairs))


def _suggest(stream: ProtocolStream, *, selected: bool, modern: bool) -> ApiPair:
    cursor = stream.default_cursor_field or []
    key = stream.source_defined_primary_key or []
    if stream.source_defined_cursor and key:
        modes = ("incremental", "append_dedup")
    elif stream.source_defined_cursor and "full_refresh" not in stream.supported_sync_modes:
        modes = ("incremental", "append")
    else:
        modes = ("full_refresh", "overwrite")
    return ApiPair(
        ApiStream(
            name=stream.name,
            json_schema=stream.json_schema,
            supported_sync_modes=stream.supported_sync_modes,
            default_cursor_field=cursor,
            source_defined_primary_key=key,
            source_defined_cursor=_known(stream.source_defined_cursor),
            namespace=_known(stream.namespace),
            is_resumable=_known(stream.is_resumable),
            is_file_based=bool(stream.is_file_based) if modern else UNSET,
        ),
        ApiConfig(
            sync_mode=modes[0],
            destination_sync_mode=modes[1],
            cursor_field=cursor,
            primary_key=key,
            alias_name=re.sub(r"[^A-Za-z0-9]", "_", stream.name),
            selected=selected,
            suggested=selected,
            field_selection_enabled=False,
            selected_fields=[],
            hashed_fields=[] if modern else UNSET,
            mappers=[] if modern else UNSET,
        ),
    )


def _known(value: T | None) -> T | UnsetType:
    return UNSET if value is None else value


def kept(catalog: Json) -> list[Json]:
    """Reduce a syncCatalog to what Airbyte stores: selected streams with their selected fields.

    Raises:
        InvalidCatalog: the field selection is invalid.
        DuplicateStreams: two streams have the same name and namespace.
        NotWritable: more than 20,000 fields, or a sync mode that the writer does not support.
    """
    pairs = [
        pair for pair in catalog.get("streams") or [] if (pair.get("config") or {}).get("selected")
    ]
    streams = [_cut(pair) for pair in pairs]
    names = [(pair["stream"].get("namespace"), pair["stream"]["name"]) for pair in streams]
    doubled = (
        sorted({name for space, name in names if names.count((space, name)) > 1})
        if len(set(names)) < len(names)
        else []
    )
    if doubled:
        raise DuplicateStreams(f"Catalog contains duplicate stream names: {', '.join(doubled)}")
    fields = sum(len(properties(pair["stream"])) for pair in streams)
    if fields > MOST_FIELDS:
        raise NotWritable(
            f"Total number of selected fields ({fields}) is greater than the limit ({MOST_FIELDS}) "
            "configured for this workspace."
        )
    return streams


def _cut(pair: Json) -> Json:
    stream, config = pair.get("stream"), dict(pair["config"])
    if not isinstance(stream, dict) or not isinstance(stream.get("name"), str):
        raise InvalidCatalog("A stream has no name.")
    name = stream["name"]
    config["syncMode"] = str(config.get("syncMode", "")).lower()
    config["destinationSyncMode"] = str(config.get("destinationSyncMode", "")).lower()
    if config["syncMode"] not in SYNC_MODES:
        raise InvalidCatalog(f"Stream {name} has no known syncMode.")
    if config["destinationSyncMode"] not in DESTINATION_SYNC_MODES:
        raise NotWritable(f"Stream {name}: the local writer has no such destinationSyncMode.")
    config.setdefault("cursorField", [])
    config.setdefault("primaryKey", [])
    if config["destinationSyncMode"].endswith("dedup") and not all(config["primaryKey"] or [[]]):
        raise NotWritable(f"Stream {name}: {config['destinationSyncMode']} needs a primary key.")
    if any(len(path) > 1 for path in config["primaryKey"]):
        raise NotWritable(f"Stream {name}: the local writer has no nested primary keys.")
    config |= {"selected": True, "suggested": False}
    if not config.get("fieldSelectionEnabled"):
        config |= {"fieldSelectionEnabled": False, "selectedFields": []}
        return {"stream": stream, "config": config}
    return {"stream": _project(stream, config), "config": config}


def _project(stream: Json, config: Json) -> Json:
    name = stream["name"]
    schema = stream.get("jsonSchema")
    if not isinstance(schema, dict) or "properties" not in schema:
        raise InvalidCatalog(f"Stream {name} has no properties to select from.")
    if config.get("selectedFields") is None:
        raise InvalidCatalog(f"Stream {name}: selectedFields must be given.")
    wanted: set[str] = set()
    for field in config["selectedFields"]:
        path = field.get("fieldPath")
        if not path:
            raise InvalidCatalog(f"Stream {name}: a selected field has an empty path.")
        if len(path) > 1:
            raise NestedSelection("Nested field selection not supported")
        wanted.add(path[0])
    cursor = config["cursorField"]
    if config["syncMode"] == "incremental" and cursor and cursor[0] not in wanted:
        raise InvalidCatalog("Cursor field cannot be de-selected in INCREMENTAL syncs")
    if config["destinationSyncMode"].endswith("dedup") and any(
        path and path[0] not in wanted for path in config["primaryKey"]
    ):
        raise InvalidCatalog("Primary key field cannot be de-selected in DEDUP mode")
    cut = {key: value for key, value in schema["properties"].items() if key in wanted}
    config["selectedFields"] = [{"fieldPath": [key]} for key in cut]
    return {**stream, "jsonSchema": {**schema, "properties": cut}}


class NestedSelection(Exception):
    """A nested field is selected, but only top-level fields can be; Airbyte answers 500."""


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


def starting_anew(before: Sequence[Json], after: Sequence[Json]) -> list[tuple[str | None, str]]:
    """Return (namespace, name) of the deselected streams and those whose syncMode changed.

    Their state is discarded.
    """
    modes = {_key(pair): pair["config"]["syncMode"] for pair in after}
    return [_key(pair) for pair in before if modes.get(_key(pair)) != pair["config"]["syncMode"]]


def _key(pair: Json) -> tuple[str | None, str]:
    return pair["stream"].get("namespace"), pair["stream"]["name"]
