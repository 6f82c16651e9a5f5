"""The policy of a connection: its form, preview and refusals."""

from __future__ import annotations

import pytest

from tests.console import connection_samples as samples
from tests.console.browser import Browser
from tests.console.connection_samples import BASE, CONNECTION
from tests.console.double import Double, problem


async def test_policy(signed_in: Browser, mesh: Double) -> None:
    """What is in effect, with the layer that set it."""
    shown = await signed_in.get(f"{BASE}/policy")

    assert "A new field Ask a person This connection" in shown.text
    assert "Verify an applied repair By reading it back Label team=sales" in shown.text
    assert "*birth* Label team=sales" in shown.text
    (asked,) = mesh.of("GET", f"{BASE}/policy")
    assert asked.query == "explain=true"


FORM = {
    "was.field.added": "propose",
    "set.field.added": "",
    "was.key.lost": "",
    "set.key.lost": "",
    "was.rename_min_confidence": "",
    "set.rename_min_confidence": "0.8",
    "was.never_select": "",
    "set.never_select": "*iban*\r\n\r\n *tax*",
}
ORDER = {
    "reactions": {"field": {"added": None}},
    "rename_min_confidence": 0.8,
    "never_select": ["*iban*", "*tax*"],
}


async def test_policy_is_previewed_and_saved(signed_in: Browser, mesh: Double) -> None:
    """Only what was changed in the form is sent, and nothing is saved before the second step."""
    mesh.answers[f"PUT {BASE}/policy"] = samples.policy()
    await signed_in.get(f"{BASE}/policy")

    preview = await signed_in.post(f"{BASE}/policy/preview", FORM)

    assert preview.status == 200
    assert "A new field Ask a person Inherited" in preview.text
    assert "1 change would have been treated differently." in preview.text
    assert "Tier__c in Account Ask a person Apply at once" in preview.text
    assert "Old__c" not in preview.text
    (asked,) = mesh.of("POST", f"{BASE}/policy/preview")
    assert asked.json == ORDER
    assert not mesh.of("PUT", f"{BASE}/policy")

    saved = await signed_in.post(f"{BASE}/policy", FORM)

    assert saved.location == f"{BASE}/policy?done=policy"
    (stored,) = mesh.of("PUT", f"{BASE}/policy")
    assert stored.json == ORDER


async def test_policy_that_somebody_else_changed(signed_in: Browser, mesh: Double) -> None:
    """Is not overwritten; what was entered is kept on top of what is stored now."""
    mesh.answers[f"GET {BASE}/policy"] = samples.policy(
        {"reactions": {"field": {"added": "ignore"}}}
    )
    await signed_in.get(f"{BASE}/policy")

    shown = await signed_in.post(f"{BASE}/policy", FORM)

    assert shown.status == 409
    assert "1 entry changed since you opened the form (A new field)." in shown.text
    assert 'name="was.field.added" value="ignore"' in shown.html
    assert 'name="set.rename_min_confidence" value="0.8"' in shown.html
    assert "*iban*" in shown.html
    assert not mesh.of("PUT", f"{BASE}/policy")


async def test_invalid_policy(signed_in: Browser, mesh: Double) -> None:
    """The service's reason stands above the form, which keeps what was entered."""
    mesh.answers[f"POST {BASE}/policy/preview"] = lambda _: problem(
        422, "invalid", "body.rename_min_confidence: Input should be at most 1."
    )
    await signed_in.get(f"{BASE}/policy")

    shown = await signed_in.post(
        f"{BASE}/policy/preview", {**FORM, "set.rename_min_confidence": "7"}
    )

    assert shown.status == 422
    assert "Input should be at most 1." in shown.text
    assert 'name="set.rename_min_confidence" value="7"' in shown.html


@pytest.mark.parametrize(
    "name,value",
    [
        *(("rename_min_confidence", value) for value in ("nan", "inf", "-Infinity", "1e999")),
        ("discoveries_per_day", "9" * 20),
        ("discoveries_per_day", "many"),
    ],
)
async def test_what_is_no_number(signed_in: Browser, mesh: Double, name: str, value: str) -> None:
    """The service gets it as it was entered, to refuse it, and the entry is not removed."""
    await signed_in.get(f"{BASE}/policy")

    await signed_in.post(f"{BASE}/policy/preview", {f"was.{name}": "1", f"set.{name}": value})

    (asked,) = mesh.of("POST", f"{BASE}/policy/preview")
    assert asked.json == {name: value}


async def test_policy_of_an_archived_connection(signed_in: Browser, mesh: Double) -> None:
    """It is shown without a form."""
    mesh.answers[f"GET {BASE}"] = {**CONNECTION, "archived_at": "2026-11-28T09:00:00Z"}
    mesh.answers[f"GET {BASE}/policy"] = samples.policy({"never_select": ["*iban*", "*tax*"]})

    shown = await signed_in.get(f"{BASE}/policy")

    assert "A new field Ask a person" in shown.text
    assert "*iban* This connection *tax* This connection" in shown.text
    assert "policy/preview" not in shown.html
    assert "<textarea" not in shown.html
    assert "<select" not in shown.html


async def test_unchanged_policy(signed_in: Browser, mesh: Double) -> None:
    """Nothing to preview."""
    await signed_in.get(f"{BASE}/policy")

    shown = await signed_in.post(f"{BASE}/policy/preview", {"was.key.lost": "", "set.key.lost": ""})

    assert "Nothing was changed in the form." in shown.text
    assert not mesh.of("POST", f"{BASE}/policy/preview")
