"""The list of repairs, and decisions about the same change of several connections."""

from __future__ import annotations

from html import unescape

from starlette.requests import Request
from starlette.responses import Response

from tests.console import repairs as shapes
from tests.console.browser import Browser
from tests.console.double import Double, json, page, problem
from tests.console.reviewed import PATH, orders


async def test_list_of_repairs(signed_in: Browser, double: Double) -> None:
    """What waits by default; filters and the cursor are in the address."""
    shapes.answer(double)
    double.answers["GET /repairs"] = page(shapes.SUMMARY, next="cursor-2")

    shown = await signed_in.get("/repairs?severity=breaking")

    assert shown.status == 200
    assert "3 fields gone, 2 new fields, 1 type changed" in shown.text
    assert "and 3 more" in shown.text
    assert "Waiting 3" in shown.text
    assert "state=proposed&amp;severity" not in shown.html or "after=cursor-2" in shown.html
    (asked,) = double.of("GET", "/repairs")
    assert asked.query == "state=proposed&severity=breaking&limit=50"


async def test_empty_list(signed_in: Browser, double: Double) -> None:
    """It says what would be here; counts may be away."""
    double.answers["GET /repairs"] = page()
    double.answers["GET /repairs/groups"] = page()

    assert "Nothing waits for a decision" in (await signed_in.get("/repairs")).text
    assert "Nothing waits on several" in (await signed_in.get("/repairs/groups")).text


async def test_group_is_decided_at_once(signed_in: Browser, double: Double) -> None:
    """One order, one result for each connection."""
    double.answers["GET /repairs/groups"] = page(shapes.GROUP)
    double.answers["POST /repairs/decide"] = {
        "items": [
            {"repair_id": shapes.REPAIR_ID, "decided_id": shapes.CHILD_ID, "state": "approved"}
            | {"code": None, "message": None},
            {"repair_id": shapes.NEWER_ID, "decided_id": None, "state": None}
            | {"code": "stale_plan", "message": "The source has changed."},
        ]
    }
    await signed_in.get("/repairs/groups")

    fields = {"group": shapes.GROUP["id"], "verdict": "approve", "loses": "yes"}
    fields |= {"answer": "became-1", "part.1": "Amount__c"}
    unexplained = await signed_in.post("/repairs/groups", fields)
    assert unexplained.status == 422
    assert "Write why" in unexplained.text
    shown = await signed_in.post(
        "/repairs/groups",
        {**fields, "why": "Release\r\n12.", "repair": shapes.REPAIR_ID, "name": "Salesforce <x>"},
    )

    (asked,) = double.of("POST", "/repairs/decide")
    assert asked.json == {
        "verdict": "approve",
        "group": shapes.GROUP["id"],
        "reason": "Release 12.",
        "choice": {"became": ["Amount__c"]},
    }
    assert "1 of 2 approved" in shown.text
    assert "1 could not be decided; it waits as before." in shown.text
    assert "stale_plan" in shown.text
    assert "Salesforce <x>" in unescape(shown.html)


async def test_group_is_shown_again_as_it_was_answered(signed_in: Browser, double: Double) -> None:
    """On the same page of groups, with the answer, the column and the reason."""
    group = shapes.GROUP | {"connection_count": 1_240}
    double.answers["GET /repairs/groups"] = page(group)
    double.answers["POST /repairs/decide"] = lambda _: problem(503, "unavailable", "Away.")
    shown = await signed_in.get("/repairs/groups?after=3-0f0f")
    assert "Approve for 200" in shown.text
    assert shown.fields["after"] == "3-0f0f"

    fields = {"group": group["id"], "verdict": "approve", "loses": "yes", "after": "3-0f0f"}
    fields |= {"answer": "became-1", "part.1": "Amount__c", "column": "new_column"}
    again = await signed_in.post("/repairs/groups", {**fields, "why": "Release 12."})

    assert again.status == 503
    assert 'value="became-1" required checked' in again.html
    assert 'value="new_column" checked' in again.html
    assert "Release 12." in again.html
    assert double.of("GET", "/repairs/groups")[-1].query == "after=3-0f0f&limit=20"
    gone = await signed_in.post("/repairs/groups", {**fields, "answer": "gone"})
    assert 'value="gone" required checked' in gone.html


async def test_rejection_of_all(signed_in: Browser, double: Double) -> None:
    """One order without changes, which means all."""
    shapes.answer(double)
    double.answers[f"POST {PATH}/reject"] = _echo
    await signed_in.get(PATH)

    answer = await signed_in.post(PATH, {"do": "reject", "why": "It comes back."})

    assert (answer.status, answer.location) == (303, PATH)
    assert orders(double, "reject") == [("", {"reason": "It comes back."})]


def _echo(_: Request) -> Response:
    return json(shapes.REPAIR | {"state": "rejected"})
