"""What a connection specification implies for a configuration: its validity and its secrets."""

from __future__ import annotations

import copy
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
    return f"{error.json_path}: violates the rule {error.validator}"


def masked(config: Any, schema: Any) -> Any:
    """Replace every secret in the configuration with the mask."""
    secret = _secret_paths(schema)
    return _walk(config, secret, lambda _value, _path: MASK, ())


def unmasked(config: Any, stored: Any, schema: Any) -> Any:
    """Replace masks in the configuration with the secrets that are stored at the same paths.

    Like Airbyte's JsonSecretsProcessor.copySecrets: a mask in an array stays, and so does one
    beside a `oneOf`, or in a variant that the configuration with its masks does not fit.
    """
    copied = copy.deepcopy(config)
    _copy_secrets(stored, copied, schema)
    return copied


def _copy_secrets(stored: Any, config: Any, schema: Any) -> None:
    if not (isinstance(stored, Mapping) and isinstance(config, dict) and isinstance(schema, dict)):
        return
    for combination in ("allOf", "anyOf", "oneOf"):
        if combination in schema:
            for branch in schema[combination]:
                if Draft7Validator(branch).is_valid(config):
                    _copy_secrets(stored, config, branch)
            return
    for name, each in (schema.get("properties") or {}).items():
        if name not in stored or name not in config:
            continue
        if each.get("airbyte_secret") and config[name] == MASK:
            config[name] = stored[name]
        else:
            _copy_secrets(stored[name], config[name], each)


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
