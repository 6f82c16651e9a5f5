"""The list of repairs, and decisions about the same change of several connections."""

from __future__ import annotations

from html import unescape

import pytest
from starlette.requests import Request
from starlette.responses import Response

from services.console.group_choices import Group
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


ITEM = Group.of(shapes.GROUP, 1).item
RENAME, GONE, OTHER = ITEM.options[0].value, "gone", "other"


def answered(value: str = RENAME, column: str = "new_column", **more: str) -> dict[str, str]:
    """The fields of an approval."""
    fields = {"group": shapes.GROUP["id"], "verdict": "approve", f"choice.{ITEM.key}": value}
    return fields | {f"column.{ITEM.key}": column} | more


async def test_rename_of_several_connections(signed_in: Browser, double: Double) -> None:
    """One card with both names, the evidence, the effects and the connections."""
    double.answers["GET /repairs/groups"] = page(shapes.GROUP)

    shown = await signed_in.get("/repairs/groups")

    assert "1 change to decide for several connections" in shown.text
    assert "1 field probably renamed · 2 Salesforce connections" in shown.text
    assert "probably became Sales_Region__c" in shown.text
    assert "94% of the sampled values are the same." in shown.text
    assert "Renamed to Sales_Region__c Suggested" in shown.text
    assert "Keeps its old name" in shown.text
    assert "Decide later" not in shown.text
    assert "Approve for 2 connections" in shown.text
    assert f'value="{RENAME}" class="rename" checked' in shown.html


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

    unexplained = await signed_in.post("/repairs/groups", answered())
    assert unexplained.status == 422
    assert "Give a reason" in unexplained.text
    shown = await signed_in.post(
        "/repairs/groups",
        answered(why="Release\r\n12.", repair=shapes.REPAIR_ID, name="Salesforce <x>"),
    )

    (asked,) = double.of("POST", "/repairs/decide")
    assert asked.json == {
        "verdict": "approve",
        "group": shapes.GROUP["id"],
        "reason": "Release 12.",
        "choice": {"became": ["Sales_Region__c"], "continuity": "new_column"},
    }
    assert "1 of 2 approved" in shown.text
    assert "1 could not be decided; it waits as before." in shown.text
    assert "stale_plan" in shown.text
    assert "Salesforce <x>" in unescape(shown.html)


@pytest.mark.parametrize(
    "fields, choice",
    [
        (answered(GONE, "", why="It is gone."), {"became": None}),
        (
            answered(column="keep_column"),  # nothing is lost
            {"became": ["Sales_Region__c"], "continuity": "keep_column"},
        ),
        (
            answered(OTHER, why="Release 12.") | {f"other.{ITEM.key}": "Area__c"},
            {"became": ["Area__c"], "continuity": "new_column"},
        ),
        ({**answered(why="It comes back."), "verdict": "reject"}, None),
    ],
)
async def test_answers_about_a_group(
    signed_in: Browser, double: Double, fields: dict[str, str], choice: dict[str, object] | None
) -> None:
    """As in a repair; a rejection has none."""
    double.answers["GET /repairs/groups"] = page(shapes.GROUP)
    double.answers["POST /repairs/decide"] = {"items": []}
    await signed_in.get("/repairs/groups")

    assert (await signed_in.post("/repairs/groups", fields)).status == 200

    (asked,) = double.of("POST", "/repairs/decide")
    assert asked.json.get("choice") == choice


@pytest.mark.parametrize(
    "fields, error",
    [
        (answered("later"), "Choose what happened to it."),
        (answered(OTHER), "Enter the name, or choose another answer."),
        (answered(column=""), "Choose whether the column keeps its old name"),
    ],
)
async def test_incomplete_answers(
    signed_in: Browser, double: Double, fields: dict[str, str], error: str
) -> None:
    """Said at the place, and nothing is decided."""
    double.answers["GET /repairs/groups"] = page(shapes.GROUP)
    await signed_in.get("/repairs/groups")

    shown = await signed_in.post("/repairs/groups", fields | {"why": "Release 12."})

    assert (shown.status, error in shown.text) == (422, True)
    assert "Release 12." in shown.html
    assert double.of("POST", "/repairs/decide") == []


async def test_group_that_was_decided_meanwhile(signed_in: Browser, double: Double) -> None:
    """The page shows what still waits."""
    double.answers["GET /repairs/groups"] = page(shapes.GROUP)
    await signed_in.get("/repairs/groups")
    double.answers["GET /repairs/groups"] = page()

    shown = await signed_in.post("/repairs/groups", answered(why="Release 12."))

    assert (shown.status, "group_changed" in shown.text) == (409, True)
    assert double.of("POST", "/repairs/decide") == []


async def test_group_is_shown_again_as_it_was_answered(signed_in: Browser, double: Double) -> None:
    """On the same page of groups, with the answer, the column and the reason."""
    group = shapes.GROUP | {"connection_count": 1_240}
    double.answers["GET /repairs/groups"] = page(group)
    double.answers["POST /repairs/decide"] = lambda _: problem(503, "unavailable", "Away.")
    shown = await signed_in.get("/repairs/groups?after=3-0f0f")
    assert "Approve for 200" in shown.text
    assert shown.fields["after"] == "3-0f0f"

    again = await signed_in.post(
        "/repairs/groups", answered(GONE, after="3-0f0f", why="Release 12.")
    )

    assert again.status == 503
    assert 'value="gone" checked' in again.html
    assert 'value="new_column" checked' in again.html
    assert "Release 12." in again.html
    assert double.of("GET", "/repairs/groups")[-1].query == "after=3-0f0f&limit=20"


async def test_group_with_one_answer(signed_in: Browser, double: Double) -> None:
    """A new field needs no choice: the button says what is done."""
    group = shapes.GROUP | {
        "kind": "field_added",
        "became": None,
        "change": shapes.ADDED,
        "pair": None,
    }
    double.answers["GET /repairs/groups"] = page(group)
    double.answers["POST /repairs/decide"] = {"items": []}
    shown = await signed_in.get("/repairs/groups")
    assert "Add it for 2 connections" in shown.text

    fields = {"group": group["id"], "verdict": "approve"}
    assert (await signed_in.post("/repairs/groups", fields)).status == 200

    (asked,) = double.of("POST", "/repairs/decide")
    assert asked.json == {"verdict": "approve", "group": group["id"]}


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
