"""Applies a stream's mappers to its records, and to what the destination is shown of the stream.

As Airbyte's worker does: an invalid mapper is dropped without an error; if a mapper fails for a
record, that one and the rest are skipped for it. The source is shown the stream as configured.

Source: airbyte-platform 310e6cb6ac, airbyte-mappers, DestinationCatalogGenerator and RecordMapper.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.decrepit.ciphers import modes as old_modes
from cryptography.hazmat.primitives import padding as blocks
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from local.airbyte import mappers
from local.airbyte.catalog import properties
from local.airbyte.releases import Release

Json = dict[str, Any]
Step = Callable[[Json], Json | None]

_SCALARS = frozenset({"string", "boolean", "integer", "number"})
_AES_BITS = algorithms.AES.block_size
_AES_MODES: dict[str, Callable[[bytes], modes.Mode]] = {
    "CBC": modes.CBC,
    "CFB": old_modes.CFB,
    "OFB": old_modes.OFB,
    "CTR": modes.CTR,
    "GCM": modes.GCM,
}
_DIGESTS = {name: name.replace("-", "").lower() for name in mappers.METHODS}


class NotMapped(Exception):
    """A mapper cannot be applied to this record."""


class MappedStream:
    """A configured stream as the destination gets it: its definition, and its records."""

    def __init__(self, pair: Json, release: Release) -> None:
        self._steps: list[Step] = []
        fields = dict(properties(pair["stream"]))
        names: dict[str, str | None] = {name: name for name in fields}
        for mapper, error, _ in mappers.applied(
            pair["config"].get("mappers") or [], list(fields), release
        ):
            if error is None:
                fields = _fields_after(mapper, fields)
                names = {origin: _name_after(mapper, name) for origin, name in names.items()}
                self._steps.append(_step(mapper))
        self.pair = _renamed(pair, fields, names) if self._steps else pair

    def record(self, data: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The record as it is written; None if a filter leaves it out."""
        mapped = dict(data) if self._steps else data
        for step in self._steps:
            try:
                result = step(dict(mapped))
            except NotMapped:
                return mapped
            if result is None:
                return None
            mapped = result
        return mapped


def _renamed(pair: Json, fields: Json, names: Mapping[str, str | None]) -> Json:
    """The stream with its fields, cursor and key as the mappers leave them."""
    stream, config = pair["stream"], pair["config"]

    def moved(path: list[str]) -> list[str]:
        return [names.get(path[0]) or path[0], *path[1:]] if path else path

    schema = {**stream["jsonSchema"], "properties": fields}
    return {
        "stream": {**stream, "jsonSchema": schema},
        "config": {
            **config,
            "cursorField": moved(config["cursorField"]),
            "primaryKey": [moved(path) for path in config["primaryKey"]],
        },
    }


def _fields_after(mapper: Json, fields: Json) -> Json:
    """The fields' schemas after a mapper, in order; of a renamed non-scalar the schema is lost."""
    after: Json = {}
    for name, schema in fields.items():
        becomes = _name_after(mapper, name)
        if becomes is None:
            continue
        is_changed = becomes != name or name == mapper["mapperConfiguration"].get("targetField")
        if is_changed and mapper["type"] in ("hashing", "encryption"):
            after[becomes] = {"type": ["null", "string"]}
        elif becomes != name and not _is_scalar(schema):
            after[becomes] = {}
        else:
            after[becomes] = schema
    return after


def _is_scalar(schema: Any) -> bool:
    stated = schema.get("type") if isinstance(schema, dict) else None
    kinds = {one for one in (stated if isinstance(stated, list) else [stated]) if one != "null"}
    return len(kinds) == 1 and kinds <= _SCALARS


def _name_after(mapper: Json, name: str | None) -> str | None:
    """The name that a mapper leaves a field; None if it drops it."""
    config = mapper["mapperConfiguration"]
    if name is None or name != config.get("targetField", config.get("originalFieldName")):
        return name
    match mapper["type"]:
        case "field-renaming":
            return str(config["newFieldName"])
        case "hashing" | "encryption":
            return f"{name}{config.get('fieldNameSuffix', '_hashed')}"
        case "field-filtering":
            return None
    return name


def _step(mapper: Json) -> Step:
    kind, config = mapper["type"], mapper["mapperConfiguration"]

    def rows(data: Json) -> Json | None:
        return data if _holds(config["conditions"], data) else None

    def values(data: Json) -> Json:
        old = config.get("targetField", config.get("originalFieldName"))
        if old not in data:
            return data
        value, new = data.pop(old), _name_after(mapper, old)
        if new is not None:
            data[new] = _value(kind, config, value)
        return data

    return rows if kind == "row-filtering" else values


def _value(kind: str, config: Json, value: Any) -> Any:
    if value is None or kind == "field-renaming":
        return value
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if kind == "hashing":
        try:
            digest = hashlib.new(_DIGESTS[config["method"]], text.encode(), usedforsecurity=False)
        except ValueError:
            raise NotMapped from None  # OpenSSL no longer has MD2
        return digest.hexdigest()
    return _encrypted(config, text.encode())


def _encrypted(config: Json, plain: bytes) -> str:
    """The value in hexadecimal digits; one by AES is preceded by its initialization vector."""
    try:
        if config["algorithm"] == "RSA":
            key = serialization.load_der_public_key(bytes.fromhex(config["publicKey"]))
            if not isinstance(key, rsa.RSAPublicKey):
                raise NotMapped
            return key.encrypt(plain, padding.PKCS1v15()).hex()
        if config["padding"] == "PKCS5Padding":
            padder = blocks.PKCS7(_AES_BITS).padder()
            plain = padder.update(plain) + padder.finalize()
        vector, mode = _mode(config["mode"])
        encryptor = Cipher(algorithms.AES(bytes.fromhex(config["key"])), mode).encryptor()
        return (vector + encryptor.update(plain) + encryptor.finalize()).hex()
    except (KeyError, ValueError, UnsupportedAlgorithm):
        raise NotMapped from None


def _mode(name: str) -> tuple[bytes, Any]:
    if name == "ECB":
        return b"", modes.ECB()  # noqa: S305  # what the mapper's configuration says
    vector = os.urandom(_AES_BITS // 8)
    return vector, _AES_MODES[name](vector)


def _holds(condition: Json, data: Json) -> bool:
    """Whether a record passes a row filter; a missing value equals nothing."""
    if condition["type"] == "NOT":
        return not all(_holds(one, data) for one in condition["conditions"])
    value = data.get(condition["fieldName"])
    if isinstance(value, bool):
        value = str(value).lower()
    return value is not None and str(value) == str(condition["comparisonValue"])
