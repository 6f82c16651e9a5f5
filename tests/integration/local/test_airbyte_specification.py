"""A configuration is judged, masked and unmasked by its connector's specification."""

from __future__ import annotations

from typing import Any

from local.airbyte.specification import MASK, faults, masked, secrets, unmasked

SECRET = {"type": "string", "airbyte_secret": True}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["host", "token"],
    "properties": {
        "host": {"type": "string", "pattern": "^[a-z]+$"},
        "token": SECRET,
        "auth": {
            "oneOf": [
                {"type": "object", "properties": {"kind": {"const": "none"}}},
                {"type": "object", "properties": {"kind": {"const": "key"}, "key": SECRET}},
            ]
        },
        "sites": {"type": "array", "items": {"type": "object", "properties": {"pin": SECRET}}},
    },
}
CONFIG: dict[str, Any] = {
    "host": "localhost",
    "token": "canary-a",
    "auth": {"kind": "key", "key": "canary-b"},
    "sites": [{"pin": "canary-c", "name": "x"}, {"name": "y"}],
    "undeclared": "kept",
}


def test_every_secret_is_masked() -> None:
    """Nested, in an alternative, in a list."""
    seen = masked(CONFIG, SCHEMA)
    assert "canary" not in str(seen)
    assert seen["auth"] == {"kind": "key", "key": MASK}
    assert seen["sites"] == [{"pin": MASK, "name": "x"}, {"name": "y"}]
    assert (seen["host"], seen["undeclared"]) == ("localhost", "kept")
    assert secrets(CONFIG, SCHEMA) == ["canary-a", "canary-b", "canary-c"]


def test_mask_in_an_update_means_the_stored_secret() -> None:
    """Except in an array, where Airbyte stores the mask itself."""
    restored = unmasked(masked(CONFIG, SCHEMA), CONFIG, SCHEMA)
    assert restored == CONFIG | {"sites": [{"pin": MASK, "name": "x"}, {"name": "y"}]}
    changed = {**masked(CONFIG, SCHEMA), "token": "canary-new"}
    assert unmasked(changed, CONFIG, SCHEMA)["token"] == "canary-new"


def test_errors_name_the_field_and_not_the_value() -> None:
    """One sentence per error."""
    assert faults(CONFIG, SCHEMA) == []
    found = faults({"host": "CANARY", "sites": "canary"}, SCHEMA)
    assert len(found) == 3
    assert "canary" not in str(found).lower()
    assert any("'token' is a required property" in each for each in found)
    assert any(each.startswith("$.host") for each in found)


def test_mask_beside_a_variant_is_not_restored() -> None:
    """Airbyte follows the variants alone, and only those that the masks fit."""
    plain = {"type": "object", "properties": {"token": SECRET}}
    kind = {"properties": {"kind": {"const": "key"}, "key": SECRET | {"pattern": "^k"}}}
    config = {"token": "canary-a", "kind": "key", "key": "k-canary"}

    beside = unmasked(masked(config, plain | {"oneOf": [kind]}), config, plain | {"oneOf": [kind]})
    assert (beside["token"], beside["key"]) == (MASK, MASK)
    assert unmasked({"token": MASK}, config, plain)["token"] == "canary-a"
