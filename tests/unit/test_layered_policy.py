"""Layers of policies: the nearest layer that sets a value wins, and never_select is merged."""

from __future__ import annotations

from typing import Any

from services.drift_repair_agent.repairs.layer_schemas import explained
from services.drift_repair_agent.repairs.policy import Policy
from shared.domain.catalog import NEVER_SELECT
from shared.domain.policy_layers import LayeredPolicy, Level, PolicyLayer

INSTALLATION = {"verify": "sync", "reactions": {"field": {"added": "propose", "removed": "apply"}}}


def layered(**settings: Any) -> LayeredPolicy:
    """A policy with these layers, in the order from the connection to the installation."""
    names = {"label": ("team", "sales"), "source_type": ("Salesforce", "")}
    levels: tuple[Level, ...] = ("connection", "label", "source_type", "installation")
    return LayeredPolicy(
        tuple(
            PolicyLayer(level, settings[level], *names.get(level, ("", "")), {}, f"by {level}")
            for level in levels
            if level in settings
        )
    )


def test_nearest_layer_that_sets_a_value_wins() -> None:
    """For each value on its own, so that the others still come from above."""
    policy = Policy.of(
        layered(
            installation=INSTALLATION | {"discoveries_per_day": 5},
            source_type={"discoveries_per_day": 7, "credentials": "propose"},
            label={"reactions": {"field": {"added": "ignore"}}},
            connection={"credentials": "ignore"},
        )
    )

    assert policy.reactions["field"] == {
        "added": "ignore",
        "removed": "apply",
        "renamed": "propose",
    }
    assert (policy.verify, policy.discoveries_per_day, policy.credentials) == ("sync", 7, "ignore")
    assert policy.set_by("field", "added") == "by label"
    assert policy.set_by("field", "removed") == "by installation"
    assert policy.set_by("field", "renamed") is None


def test_patterns_are_merged_downwards() -> None:
    """No layer takes back what one above it excludes, not even with an empty list."""
    policy = Policy.of(
        layered(
            installation={"never_select": ["*iban*"]},
            label={"never_select": ["*birth*", "*iban*"]},
            connection={"never_select": []},
        )
    )
    assert policy.never_select == ("*iban*", "*birth*")
    assert policy.excludes("IBAN")
    assert policy.excludes("birth_day")

    merged = Policy.of(layered(connection={"never_select": ["*birth*"]}))
    assert merged.never_select == (*NEVER_SELECT, "*birth*")
    assert Policy.of(layered(connection={"verify": "sync"})).never_select == NEVER_SELECT


def test_only_the_installation_replaces_the_default_patterns() -> None:
    assert Policy.of(layered(installation={"never_select": []})).never_select == ()
    assert not Policy.of(layered(installation={"never_select": []})).excludes("password")


def test_explanation_names_the_layer_of_each_value() -> None:
    """With the values that it overrides, and the layer of each pattern."""
    stored = layered(
        installation=INSTALLATION,
        label={"verify": "read_back", "never_select": ["*iban*"]},
        connection={"verify": "sync", "never_select": ["*birth*"]},
    )

    found = explained(Policy.of(stored), stored).model_dump(exclude_none=True)

    assert found["values"]["verify"] == {
        "value": "sync",
        "layer": {"level": "connection"},
        "set_by": "by connection",
        "overrides": [
            {
                "layer": {"level": "label", "name": "team", "value": "sales"},
                "value": "read_back",
            },
            {"layer": {"level": "installation"}, "value": "sync"},
        ],
    }
    assert found["values"]["field.removed"]["layer"] == {"level": "installation"}
    assert found["values"]["rename_min_confidence"] == {
        "value": 0.9,
        "layer": {"level": "default"},
        "overrides": [],
    }
    assert [(one["pattern"], one["layer"]["level"]) for one in found["never_select"]] == [
        *((pattern, "default") for pattern in NEVER_SELECT),
        ("*iban*", "label"),
        ("*birth*", "connection"),
    ]
