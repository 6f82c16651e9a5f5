"""What a connection specification implies for a configuration: its validity and its secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError

MASK = "**********"
Json = Mapping[str, Any]


def faults(config: Json, schema: Json) -> list[str]:
    """List where the configuration violates its schema: paths and rules, never values."""
    errors = sorted(
        Draft7Validator(dict(schema)).iter_errors(config), key=lambda each: each.json_path
    )
    return [_fault(error) for error in errors]


def _fault(error: ValidationError) -> str:
    if error.validator == "required":
        return f"{error.json_path}: {error.message}"  # it names the property and quotes no value
    if error.validator == "type":
        return f"{error.json_path}: is not of type {error.validator_value}"
    return f"{error.json_path}: breaks the rule {error.validator}"


def masked(config: Any, schema: Any) -> Any:
    """Replace every secret in the configuration by the mask."""
    secret = _secret_paths(schema)
    return _walk(config, secret, lambda _value, _path: MASK, ())


def unmasked(config: Any, stored: Any, schema: Any) -> Any:
    """Replace masks in the configuration by the secrets that are stored at the same paths."""

    def restore(value: Any, path: tuple[str, ...]) -> Any:
        secret = _at(stored, path) if value == MASK else None
        return value if secret is None else secret

    return _walk(config, _secret_paths(schema), restore, ())


def secrets(config: Any, schema: Any) -> list[str]:
    """Return the secret strings in a configuration, longest first."""
    found: list[str] = []

    def note(value: Any, _path: tuple[str, ...]) -> Any:
        if isinstance(value, str) and len(value) >= 4:
            found.append(value)
        return value

    _walk(config, _secret_paths(schema), note, ())
    return sorted(found, key=len, reverse=True)


def _secret_paths(schema: Any) -> set[tuple[str, ...]]:
    return set(_paths(schema, ()))


def _paths(schema: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the paths of secret fields in all alternatives of the schema; `[]` is any list item."""
    if not isinstance(schema, Mapping):
        return
    if schema.get("airbyte_secret"):
        yield path
    for name, each in (schema.get("properties") or {}).items():
        yield from _paths(each, (*path, name))
    for combination in ("oneOf", "anyOf", "allOf"):
        for each in schema.get(combination) or ():
            yield from _paths(each, path)
    if "items" in schema:
        yield from _paths(schema["items"], (*path, "[]"))


def _walk(value: Any, secret: set[tuple[str, ...]], change: Any, path: tuple[str, ...]) -> Any:
    plain = tuple("[]" if step.startswith("[") else step for step in path)
    if plain in secret and value is not None:
        return change(value, path)
    if isinstance(value, Mapping):
        return {key: _walk(each, secret, change, (*path, key)) for key, each in value.items()}
    if isinstance(value, list):
        return [_walk(each, secret, change, (*path, f"[{at}]")) for at, each in enumerate(value)]
    return value


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.startswith("[") and int(step[1:-1]) < len(value):
            value = value[int(step[1:-1])]
        else:
            return None
    return value
