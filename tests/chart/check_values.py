"""Every value of the schema changes what is rendered, and nothing else is accepted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import helm_python
import pytest

from tests.chart.rendering import CHART, changed, default_values, texts, values

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
_BASES = ("production", "external-secrets", "keda", "upgrade", "no-console", "minimal")
"""The sets of values in which a change is tried: not every value is used in each."""
_SOONER = (
    (r"remoteKey|remoteProperty|vault|^externalSecrets/", "external-secrets"),
    (r"^(keda|gateway)/", "keda"),
    (r"airbyte(Username|Password)/|/replicas$|^image/tag|WEBHOOK_NETWORKS", "upgrade"),
    (r"airbyteApiKey/|^networkPolicy/clients/", "no-console"),
)
"""Where a change is tried first, to save time."""
_HALVES = {
    "secrets/airbyteUsername": "secrets/airbytePassword",
    "secrets/airbytePassword": "secrets/airbyteUsername",
}
"""Secrets that are used together alone."""
_TEXTS = (
    *("changed", "https://changed.example.com", "https://changed.example.com/api/v1"),
    *("77m", "77s", "77h", f"sha256:{'7' * 64}"),
)


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference."""
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    return found


def leaves(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each leaf with its path; the members of a map of any names are one leaf."""
    schema = resolved(schema)
    members = dict(schema.get("properties", {}))
    for member in schema.get("patternProperties", {}).values():
        members["another-id"] = member
    if not members:
        yield path, schema
    for name, member in members.items():
        yield from leaves(member, f"{path}/{name}" if path else name)


LEAVES = dict(leaves(SCHEMA))


def others(schema: dict[str, Any]) -> list[Any]:
    """Return values to try at a leaf; the schema refuses those that it does not accept."""
    if "enum" in schema:
        return list(schema["enum"])
    found: dict[str, list[Any]] = {
        "boolean": [True, False],
        "string": [one for one in _TEXTS if re.search(schema.get("pattern", ""), one)],
        "object": [{"example.com/changed": "yes"}],
        "array": [
            [7777],
            [{"name": "changed"}],
            [{"podSelector": {"matchLabels": {"changed": "yes"}}}],
        ],
        "integer": [one for one in (5, 7, 77, 7777) if one <= schema.get("maximum", one)],
    }
    kind = schema["type"]
    return found["integer" if "integer" in kind else kind]


def beside(path: str) -> list[tuple[str, Any]]:
    """Return what else must be set for a leaf to be used at all."""
    outer, _, last = path.rpartition("/")
    if not outer.startswith(("secrets/", "credentials/")):
        return []
    half = _HALVES.get(outer)
    other = [] if half is None else [(f"{half}/existingSecret", "other-half")]
    if last in ("remoteKey", "remoteProperty"):
        return [*other, (f"{outer}/existingSecret", ""), (f"{outer}/remoteKey", "another/key")]
    if last == "existingSecret":
        return [*other, (f"{outer}/existingSecret", "another"), (f"{outer}/remoteKey", "")]
    return []


@cache
def _unchanged(name: str) -> dict[str, str]:
    return texts(values(name))


def rendered(name: str, changes: list[tuple[str, Any]]) -> dict[str, str] | None:
    """Return what a set of values renders with changes; None if they contradict each other."""
    try:
        return texts(changed(values(name), *changes))
    except helm_python.HelmError:
        return None


def changes_the_render(path: str, schema: dict[str, Any]) -> bool:
    """Whether a change of one leaf alone changes what a set of values renders."""
    needed = beside(path)
    sooner = [name for pattern, name in _SOONER if re.search(pattern, path)]
    for name in dict.fromkeys([*sooner, *_BASES]):
        before = rendered(name, needed) if needed else _unchanged(name)
        if before is None:
            continue
        for other in others(schema):
            after = rendered(name, [*needed, (path, other)])
            if after is not None and _objects(after) != _objects(before):
                return True
    return False


def _objects(of: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in of.items() if not name.endswith("NOTES.txt")}


@pytest.mark.parametrize("path", LEAVES)
def test_value_changes_the_render(path: str) -> None:
    """A value that no template reads would be a false promise."""
    assert changes_the_render(path, LEAVES[path])


def test_schema_and_defaults_have_the_same_values() -> None:
    """values.yaml lists every value, except the members of maps."""
    known = {path for path in LEAVES if not path.startswith(("settings/", "credentials/"))}
    listed: set[str] = set()

    def walk(given: Any, path: str) -> None:
        if path in LEAVES or path in ("settings", "credentials"):
            listed.add(path)
        elif isinstance(given, dict):
            for name, member in given.items():
                walk(member, f"{path}/{name}" if path else name)
        else:
            pytest.fail(f"{path} is not in the schema")

    walk(default_values(), "")
    assert listed - {"settings", "credentials"} == known


def test_every_object_of_the_schema_is_closed() -> None:
    def walk(schema: dict[str, Any], path: str) -> None:
        if schema.get("type") == "object" and "items" not in path.split("/")[-1:]:
            assert "additionalProperties" in schema, path
        for name, member in schema.get("properties", {}).items():
            walk(member, f"{path}/{name}")

    walk(SCHEMA, "")
    for name, one in SCHEMA["$defs"].items():
        walk(one, name)


@pytest.mark.parametrize(
    "path, value, named",
    [
        ("image/repo", "x", "repo"),
        ("settings/OBSERVE_INTERVALL", "600", "OBSERVE_INTERVALL"),
        ("settings/OBSERVE_INTERVAL", 600, "OBSERVE_INTERVAL"),
        ("settings/LOG_LEVEL", "TRACE", "LOG_LEVEL"),
        ("settings/SUPABASE_DB_URL", "postgresql://x", "SUPABASE_DB_URL"),
        ("settings/AIRBYTE_CLIENT_SECRET", "x", "AIRBYTE_CLIENT_SECRET"),
        ("console/url", "http://aam.example.com", "url"),
        ("console/url", "https://aam.example.com/console", "url"),
        ("airbyte/url", "https://airbyte.example.com", "url"),
        ("services/orchestrator/replicas", 0, "replicas"),
        ("services/orchestrator/resources/memory", "lots", "memory"),
        ("podSecurity/runAsUser", 0, "runAsUser"),
        ("podLabels", {"app.kubernetes.io/component": "x"}, "app.kubernetes.io/component"),
        ("credentials", {"Not An Id": {}}, "Not An Id"),
        ("metrics/port", 80, "port"),
    ],
)
def test_schema_refuses(path: str, value: Any, named: str) -> None:
    """Misspelt names, secrets among the settings, root, and plain http for people."""
    with pytest.raises(helm_python.HelmError) as refused:
        texts(changed(values("minimal"), (path, value)))

    assert named in str(refused.value)
