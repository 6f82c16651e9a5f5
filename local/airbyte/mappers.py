"""Mappers of a stream, as Airbyte validates, stores and shows them.

`mappers` exist since 1.2; `hashedFields`, which Airbyte turns into hashing mappers, since 0.64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

from local.airbyte.errors import Problem, uncaught, unreadable
from local.airbyte.releases import Release

Json = dict[str, Any]

MASK = "**********"
_SINCE = {
    "hashing": (1, 2),
    "field-renaming": (1, 2),
    "row-filtering": (1, 2),
    "encryption": (1, 3),
    "field-filtering": (1, 8),
}
METHODS = {"MD2", "MD5", "SHA-1", "SHA-224", "SHA-256", "SHA-384", "SHA-512"}
_REQUIRED = {
    "hashing": ("targetField", "method"),
    "field-renaming": ("originalFieldName", "newFieldName"),
    "row-filtering": ("conditions",),
    "encryption": ("targetField", "algorithm", "fieldNameSuffix"),
    "field-filtering": ("targetField",),
}
_OF_ALGORITHM = {"AES": ("key", "mode", "padding"), "RSA": ("publicKey",)}
_ERROR = "error:mapper-validation"


def knows_hashed_fields(release: Release) -> bool:
    """Whether a stream's configuration has `hashedFields`."""
    return release.since(0, 64)


def knows_mappers(release: Release) -> bool:
    """Whether a stream's configuration has `mappers`."""
    return release.since(1, 2)


def stored(given: Json, stream: Json, held: Sequence[Json], release: Release) -> list[Json]:
    """Return the mappers to store, with ids and keys, of a stream cut to its selected fields.

    `given` is the configuration in the request, `held` are the stream's current mappers.
    `hashedFields` count only if there are no mappers.

    Raises:
        Refusal: 400 as Airbyte refuses invalid mappers, 422 for what is not a mapper, and 500 for
            `mappers` that are null.
    """
    if not knows_mappers(release):
        return []
    if "mappers" in given and given["mappers"] is None:
        raise uncaught("getMappers() is null", "java.lang.NullPointerException")
    mappers: list[Json] = []
    for each in given.get("mappers") or hashed(given):
        require_readable(each, release)
        mappers.append({**each, "id": each.get("id") or str(uuid4())})
    fields = list((stream.get("jsonSchema") or {}).get("properties") or {})
    errors = [
        {"stream": stream["name"], "error": word, "mapper": mapper}
        for mapper, word, _ in applied(mappers, fields, release)
        if word is not None
    ]
    if errors:
        detail = "The mapper configuration is invalid"
        raise Problem(400, _ERROR, "Mapper validation failed", detail, errors=errors)
    return [_with_key(mapper, held) for mapper in mappers]


def hashed(config: Json) -> list[Json]:
    """Return the mappers that Airbyte makes from `hashedFields`."""
    return [
        {
            "type": "hashing",
            "mapperConfiguration": {
                "targetField": field["fieldPath"][0],
                "method": "SHA-256",
                "fieldNameSuffix": "_hashed",
            },
        }
        for field in config.get("hashedFields") or []
    ]


def hashed_fields(mappers: Sequence[Json]) -> list[Json]:
    """Return the `hashedFields` that Airbyte shows: the targets of hashing mappers."""
    return [
        {"fieldPath": [each["mapperConfiguration"]["targetField"]]}
        for each in mappers
        if each["type"] == "hashing"
    ]


def applied(
    mappers: Sequence[Json], fields: Sequence[str], release: Release
) -> Iterator[tuple[Json, str | None, list[str]]]:
    """Apply mappers in order to the names of fields; an invalid one changes nothing.

    Yields each mapper, Airbyte's word if it is invalid, and the fields that it leaves.
    """
    names = list(fields)
    for mapper in mappers:
        error, config = None, mapper["mapperConfiguration"]
        old = config.get("targetField", config.get("originalFieldName"))
        new = config.get("newFieldName") or f"{old}{config.get('fieldNameSuffix', '_hashed')}"
        if mapper["type"] == "row-filtering":
            pass  # it checks nothing
        elif old not in names:
            error = "FIELD_NOT_FOUND"
        elif mapper["type"] == "field-filtering":
            names = [name for name in names if name != old]
        elif new in names and new != old and release.since(1, 3):
            error = "FIELD_ALREADY_EXISTS"
        else:
            names = [new if name == old else name for name in names]
        yield mapper, error, list(names)


def masked(held: Json) -> Json:
    """Return a connection as the API shows it, with its encryption keys masked."""
    if not any(map(_keyed, _configs(held))):
        return held
    streams = [
        {**pair, "config": _masked(pair["config"])} if _keyed(pair["config"]) else pair
        for pair in held["syncCatalog"]["streams"]
    ]
    return {**held, "syncCatalog": {"streams": streams}}


def _configs(held: Json) -> Iterator[Json]:
    return (pair["config"] for pair in held["syncCatalog"]["streams"])


def _keyed(config: Json) -> bool:
    return any("key" in each["mapperConfiguration"] for each in config.get("mappers") or [])


def _masked(config: Json) -> Json:
    mappers = [
        {**each, "mapperConfiguration": {**each["mapperConfiguration"], "key": MASK}}
        if "key" in each["mapperConfiguration"]
        else each
        for each in config["mappers"]
    ]
    return {**config, "mappers": mappers}


def _with_key(mapper: Json, held: Sequence[Json]) -> Json:
    """Replace a masked key with the stored one of the mapper with the same id."""
    config = mapper["mapperConfiguration"]
    if config.get("key") != MASK:
        return mapper
    known = next((each for each in held if each.get("id") == mapper["id"]), None)
    if known is None or "key" not in known["mapperConfiguration"]:
        raise _of_mapper(
            mapper,
            "secret-not-found",
            "Mapper secret not found",
            "Attempted to use pre-existing secret values, but an existing secret for that mapper "
            "was not found. Please provide the secret values.",
        )
    return {**mapper, "mapperConfiguration": {**config, "key": known["mapperConfiguration"]["key"]}}


def require_readable(mapper: Any, release: Release) -> None:
    """Refuse what is not a mapper of this release.

    Raises:
        Refusal: 422, or 400 for a configuration without a required parameter or with a wrong one.
    """
    if not isinstance(mapper, dict):
        raise unreadable("a mapper is not an object.")
    kind, config = mapper.get("type"), mapper.get("mapperConfiguration")
    if not isinstance(kind, str) or kind not in _SINCE or not release.since(*_SINCE[kind]):
        raise unreadable("mappers has no such type.")
    if not isinstance(config, dict):
        raise unreadable("a mapper has no mapperConfiguration.")
    required = [*_REQUIRED[kind], *_OF_ALGORITHM.get(str(config.get("algorithm")), ())]
    for name in required:
        if config.get(name) is None:
            raise _of_mapper(
                mapper,
                "missing-required-param",
                "Mapper configuration missing required parameter",
                "The mapper configuration is missing a required parameter",
                message=f"{name} is missing",
            )
    algorithm, method = config.get("algorithm", "RSA"), config.get("method", "MD5")
    if kind == "hashing":
        config.setdefault("fieldNameSuffix", "_hashed")
    is_bad_filter = kind == "row-filtering" and not _is_condition(config["conditions"])
    if algorithm not in _OF_ALGORITHM or method not in METHODS or is_bad_filter:
        raise _of_mapper(
            mapper,
            "invalid-config",
            "Invalid Mapper Configuration",
            "The mapper configuration is invalid and cannot be parsed",
        )


def _is_condition(value: Any) -> bool:
    """Whether this is EQUAL or NOT; the API refuses AND and OR, which exist inside Airbyte."""
    if not isinstance(value, Mapping):
        return False
    if value.get("type") == "NOT":
        inner = value.get("conditions")
        return isinstance(inner, list) and bool(inner) and all(map(_is_condition, inner))
    return value.get("type") == "EQUAL" and {"fieldName", "comparisonValue"} <= value.keys()


def _of_mapper(mapper: Json, kind: str, title: str, detail: str, **more: str) -> Problem:
    data = {"mapperType": mapper["type"], **more}
    if "id" in mapper:
        data["mapperId"] = mapper["id"]
    return Problem(400, f"{_ERROR}/{kind}", title, detail, **data)
