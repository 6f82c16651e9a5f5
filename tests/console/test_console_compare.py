"""The page that compares two versions and rolls back to the older one."""

from __future__ import annotations

from html import unescape
from typing import Any

import pytest
from fastapi import FastAPI

from services.console import text
from tests.console import repairs as shapes
from tests.console.browser import Browser
from tests.console.double import Double, page, problem
from tests.console.test_console_security import HOSTILE, injected

CONNECTION = f"/connections/{shapes.CONNECTION_ID}"
PATH = f"{CONNECTION}/versions/14..11"
ROLLBACK = f"POST {CONNECTION}/rollback"
ACCOUNT = {"namespace": None, "name": "Account"}


def summary(stream: dict[str, Any], changes: int) -> dict[str, Any]:
    """How a stream differs."""
    return {
        "stream": stream,
        "change": "changed",
        "schema_changes": changes,
        "config_changes": 0,
        "by_kind": {"field_added": changes},
    }


def answer(double: Double, *, head: int = 14, pair: str = "14/diff/11") -> None:
    """Let the services know a connection with versions 11 to 14."""
    diff = f"GET {CONNECTION}/catalog-versions/{pair}"
    versions = [shapes.VERSION | {"version_number": number} for number in (14, 13, 12, 11)]
    double.answers |= {
        f"GET {CONNECTION}": {
            "id": shapes.CONNECTION_ID,
            "name": "Salesforce production",
            "catalog_version": head,
        },
        f"GET {CONNECTION}/catalog-versions": page(*versions),
        diff: shapes.DIFF | {"next": None},
        f"{diff}/summary": page(
            summary(ACCOUNT, 3), summary({"namespace": "x", "name": "Wide"}, 400)
        ),
        "GET /repairs/summary": shapes.COUNTS,
        ROLLBACK: shapes.DRY_RUN | {"repair_id": None, "afterwards": "as_it_is"},
    }


async def test_rollback_is_explained(signed_in: Browser, double: Double) -> None:
    """The difference, and beside it the effects by a dry run."""
    answer(double)

    shown = await signed_in.get(PATH)

    assert shown.status == 200
    assert "Roll back to version 11?" in shown.text
    assert "the catalog of version 11 is applied as version 15" in shown.text
    assert "its last full read took 52 min" in shown.text
    assert "Show its 400 changes" in shown.text
    assert 'href="' + PATH + '?stream=Wide&amp;namespace=x"' in shown.html
    (asked,) = double.of("POST", f"{CONNECTION}/rollback")
    assert asked.query == "dry_run=true"


async def test_rollback(signed_in: Browser, double: Double) -> None:
    """It needs a reason, is sent once, and leads to its progress."""
    answer(double)
    await signed_in.get(PATH)

    refused = await signed_in.post(PATH, {"why": " "})
    assert refused.status == 422
    assert 'aria-invalid="true"' in refused.html

    double.answers[ROLLBACK] = shapes.REPAIR | {"id": shapes.CHILD_ID, "kind": "rollback"}
    done = await signed_in.post(PATH, {"why": "Rows were\r\nduplicated."})

    assert (done.status, done.location) == (303, f"/repairs/{shapes.CHILD_ID}")
    sent = double.of("POST", f"{CONNECTION}/rollback")[-1]
    assert (sent.query, sent.json) == (
        "wait=0",
        {"version": 11, "reason": "Rows were duplicated."},
    )
    assert len(sent.headers["idempotency-key"]) >= 16


async def test_newer_version_came_meanwhile(signed_in: Browser, double: Double) -> None:
    """Nothing is sent; the page compares from the newest version and keeps the reason."""
    answer(double)
    await signed_in.get(PATH)
    answer(double, head=15, pair="15/diff/11")
    double.asked.clear()

    shown = await signed_in.post(PATH, {"why": "Kept."})

    assert shown.status == 409
    assert "The connection is at version 15 now, not 14" in shown.text
    assert "Kept." in shown.html
    assert f'action="{CONNECTION}/versions/15..11"' in shown.html
    assert {one.query for one in double.of("POST", f"{CONNECTION}/rollback")} == {"dry_run=true"}


async def test_impossible_rollback(signed_in: Browser, double: Double) -> None:
    """Before anybody tries: what the source no longer has, and what can be done instead."""
    answer(double)
    double.answers[ROLLBACK] = lambda _: problem(
        409,
        "rollback_impossible",
        "The source no longer has what version 11 needs.",
        problems=[{"stream": "Account", "field": "Id", "message": "Account has no field Id."}],
    )

    shown = await signed_in.get(PATH)

    assert shown.status == 200
    assert "Version 11 cannot be restored now" in shown.text
    assert "Account has no field Id." in shown.text
    assert f'<a href="{CONNECTION}">Keep version 14</a>' in shown.html
    assert f'action="{CONNECTION}/observe"' in shown.html
    assert "syncs may pause until they are decided" in shown.text
    for tab in ("versions", "catalog"):
        assert f'href="{CONNECTION}/{tab}"' in shown.html
    assert "Roll back to version 11?" not in shown.text
    assert 'name="why"' not in shown.html


async def test_check_of_the_schema_leads_back(signed_in: Browser, double: Double) -> None:
    """From an impossible rollback back to it; the page says what is possible now."""
    answer(double)
    possible = double.answers[ROLLBACK]
    double.answers[ROLLBACK] = lambda _: problem(409, "rollback_impossible", "No.", problems=[])
    double.answers[f"POST {CONNECTION}/observe"] = {"outcome": "changed"}
    await signed_in.get(PATH)

    done = await signed_in.post(f"{CONNECTION}/observe", {"from": "14", "to": "11"})

    assert (done.status, done.location) == (303, f"{PATH}?checked=changed")
    still = await signed_in.get(f"{PATH}?checked=changed")
    assert "Version 11 cannot be restored with what the source has now." in still.text
    double.answers[ROLLBACK] = possible
    again = await signed_in.get(f"{PATH}?checked=changed")
    assert "The schema was checked: it has changed. Version 11 can be restored now:" in again.text


async def test_rollback_becomes_impossible_before_it_is_sent(
    signed_in: Browser, double: Double
) -> None:
    """The page that a refused form leads to quotes the reason that was not saved."""
    answer(double)
    await signed_in.get(PATH)
    double.answers[ROLLBACK] = lambda _: problem(
        409, "rollback_impossible", "The source no longer has what version 11 needs.", problems=[]
    )

    shown = await signed_in.post(PATH, {"why": "As it was."})

    assert shown.status == 409
    assert "Your reason was not saved: As it was." in shown.text
    assert "What you can do instead" in shown.text


async def test_older_service_is_not_asked_to_rehearse(signed_in: Browser, double: Double) -> None:
    """The page says why there is no preview; one without dry runs would roll back."""
    answer(double)
    double.answers["GET /repairs/summary"] = lambda _: problem(422, "invalid_request", "No UUID.")

    shown = await signed_in.get(PATH)

    assert shown.status == 200
    assert "dry_run_unsupported" in shown.text
    assert double.of("POST", f"{CONNECTION}/rollback") == []


async def test_choice_about_global_state(signed_in: Browser, double: Double) -> None:
    """Asked for where the API does, and sent with the order."""
    answer(double)
    double.answers[ROLLBACK] = lambda _: problem(409, "global_state", "A choice is needed.")
    shown = await signed_in.get(PATH)
    assert "Resume them" in shown.text

    double.answers[ROLLBACK] = shapes.REPAIR | {"id": shapes.CHILD_ID}
    await signed_in.post(PATH, {"why": "x", "on_global_state": "refresh"})

    sent = double.of("POST", f"{CONNECTION}/rollback")[-1]
    assert sent.json["on_global_state"] == "refresh"


async def test_without_the_right_to_roll_back(app: FastAPI, double: Double) -> None:
    """The difference is shown, the button is disabled, and no dry run is asked for."""
    double.scopes = ("connections:read",)
    answer(double)
    browser = Browser(app)
    await browser.sign_in(double.key)

    shown = await browser.get(PATH)

    assert shown.status == 200
    assert "Needs catalogs:heal" in shown.text
    assert double.of("POST", f"{CONNECTION}/rollback") == []
    await browser.client.aclose()


async def test_two_older_versions(signed_in: Browser, double: Double) -> None:
    """They are compared without a form, and with a way to the rollback."""
    answer(double, pair="11/diff/12")

    shown = await signed_in.get(f"{CONNECTION}/versions/11..12")

    assert "Version 11 compared with 12" in shown.text
    assert f'href="{CONNECTION}/versions/14..11"' in shown.html
    assert "Roll back to version" not in shown.text
    chosen = await signed_in.get(f"{CONNECTION}/versions/compare?a=13&b=12")
    assert chosen.location == f"{CONNECTION}/versions/13..12"


async def test_streams_are_searched(signed_in: Browser, double: Double) -> None:
    """By a part of the name, which stays in the address and in its field."""
    answer(double)
    double.answers[f"GET {CONNECTION}/catalog-versions/14/diff/11/summary"] = page(next="n" * 3_000)

    chosen = await signed_in.get(f"{CONNECTION}/versions/compare?a=14&b=11&search=a%26b")
    shown = await signed_in.get(chosen.location)

    assert chosen.location == f"{PATH}?search=a%26b"
    assert 'name="search" value="a&amp;b"' in shown.html
    asked = double.of("GET", f"{CONNECTION}/catalog-versions/14/diff/11/summary")[-1]
    assert asked.query == "search=a%26b&limit=50"
    assert (await signed_in.get(f"{PATH}?after={'n' * 3_000}")).status == 200


async def test_one_stream(signed_in: Browser, double: Double) -> None:
    """All of its changes, a page at a time."""
    answer(double)
    diff = f"GET {CONNECTION}/catalog-versions/14/diff/11"
    double.answers[diff] = shapes.DIFF | {"config_changes": [], "next": "100"}

    shown = await signed_in.get(f"{PATH}?stream=Account")

    assert "Employees__c integer → became number" in shown.text
    assert 'href="' + PATH + '?stream=Account&amp;after=100"' in shown.html
    asked = double.of("GET", f"{CONNECTION}/catalog-versions/14/diff/11")[-1]
    assert asked.query == "stream=Account&after=0&limit=100"


async def test_parts_may_be_away(signed_in: Browser, double: Double) -> None:
    """The effects are, the difference is not; and an unknown version is no page."""
    answer(double)
    double.answers["GET /repairs/summary"] = lambda _: problem(503, "unavailable", "Away.")
    shown = await signed_in.get(PATH)
    assert shown.status == 200
    assert "No preview" in shown.text
    assert "Region__c" in shown.text

    del double.answers[f"GET {CONNECTION}/catalog-versions/14/diff/11/summary"]
    assert (await signed_in.get(PATH)).status == 404
    assert (await signed_in.get(f"{CONNECTION}/versions/0..1")).status == 404
    assert (await signed_in.get(f"{CONNECTION}/versions/{2**40}..1")).status == 404


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_names_in_comparisons(signed_in: Browser, double: Double, name: str) -> None:
    """Streams, fields and types are text."""
    answer(double)
    stream = {"namespace": name, "name": name}
    change = {"kind": "field_added", "stream": stream, "path": [name], "after": {"type": name}}
    diff = f"GET {CONNECTION}/catalog-versions/14/diff/11"
    double.answers[diff] = shapes.DIFF | {"schema_changes": [change], "next": None}
    double.answers[f"{diff}/summary"] = page(summary(stream, 1), summary(stream, 400))

    shown = await signed_in.get(PATH)

    assert shown.status == 200
    assert text.visible_name(name) in unescape(shown.html)
    assert not injected(shown.html)
    assert not any(text._is_hidden(char) for char in shown.html if char not in "\n\t")
