"""Which streams and fields the bytes of a catalog select."""

from __future__ import annotations

from typing import Any

import msgspec


class _Selection(msgspec.Struct, frozen=True):
    selected: bool = False


class _Selectable(msgspec.Struct, frozen=True):
    config: _Selection


class _Streams(msgspec.Struct, frozen=True):
    streams: list[_Selectable]


class _RawStreams(msgspec.Struct, frozen=True):
    streams: list[msgspec.Raw]


_SELECTION = msgspec.json.Decoder(_Streams)
_RAW_STREAMS = msgspec.json.Decoder(_RawStreams)


def only_selected(catalog: bytes) -> bytes:
    """The catalog with only its selected streams; the same object when all are selected.

    Raises:
        msgspec.DecodeError: it is not a catalog.
    """
    chosen = [pair.config.selected for pair in _SELECTION.decode(catalog).streams]
    if chosen and all(chosen):
        return catalog
    pairs = _RAW_STREAMS.decode(catalog).streams
    selected: list[Any] = [pair for pair, keep in zip(pairs, chosen, strict=True) if keep]
    return msgspec.json.encode({"streams": selected})


class _Properties(msgspec.Struct, frozen=True):
    properties: dict[str, msgspec.Raw] = {}


class _Stream(msgspec.Struct, frozen=True, rename="camel"):
    json_schema: _Properties = _Properties()


class _FieldSelection(msgspec.Struct, frozen=True, rename="camel"):
    field_selection_enabled: bool = False
    selected_fields: list[msgspec.Raw] = []


class _StreamFields(msgspec.Struct, frozen=True):
    stream: _Stream = _Stream()
    config: _FieldSelection = _FieldSelection()

    @property
    def count(self) -> int:
        if self.config.field_selection_enabled:
            return len(self.config.selected_fields)
        return len(self.stream.json_schema.properties)


class _FieldsOfStreams(msgspec.Struct, frozen=True):
    streams: list[_StreamFields]


_FIELDS = msgspec.json.Decoder(_FieldsOfStreams)


def count_selected(catalog: bytes) -> tuple[int, int]:
    """Count the streams and their selected top-level fields in a catalog of selected streams.

    A malformed stream counts as one without fields, since its limit is not what is wrong with it.
    """
    streams = len(_RAW_STREAMS.decode(catalog).streams)
    try:
        return streams, sum(one.count for one in _FIELDS.decode(catalog).streams)
    except msgspec.DecodeError:
        return streams, 0
