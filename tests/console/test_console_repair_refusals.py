"""The page of a repair where a decision is refused, late, or cannot be sent."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI

from services.console.forms import Form
from services.console.repair_choices import Decisions
from tests.console import repairs as shapes
from tests.console.browser import SAME_ORIGIN, Browser
from tests.console.double import Double, problem
from tests.console.reviewed import APPROVE, NEWER, PATH, key, orders, previewed, renamed


async def test_choices_that_contradict_each_other(signed_in: Browser, double: Double) -> None:
    """A new name that is rejected, and another name that is not given."""
    shapes.answer(double)

    shown = await previewed(
        signed_in,
        {
            f"choice.{key('c2')}": renamed("Partner_Tier__c"),
            f"choice.{key('c5')}": "reject",
            f"choice.{key('c4')}": "other",
        },
    )

    assert shown.status == 422
    assert "Partner_Tier__c is chosen here as the new name, but its own change is rejected." in (
        shown.text
    )
    assert "Enter the name, or choose another answer." in shown.text
    assert orders(double) == []


@pytest.mark.parametrize("verb", ["approve", "reject"])
async def test_somebody_else_decides_first(signed_in: Browser, double: Double, verb: str) -> None:
    """Between reading the repair and deciding it: the page shows who decided what instead."""
    shapes.answer(double)
    choices = {f"choice.{key('c2')}": renamed("Sales_Region__c"), "why": "Mine."}
    fields = (await previewed(signed_in, choices)).fields

    def decided(_: Any) -> Any:
        made = {"verdict": "approved", "by": "grace@example.com", "at": shapes.AT, "changes": []}
        shapes.answer(double, state="approved", decisions=[made | {"reason": "Hers."}])
        return problem(409, "not_proposed", "The repair is approved.")

    double.answers[f"POST {PATH}/{verb}"] = decided
    sent = choices | {"do": verb, "previewed": fields["previewed"]}

    shown = await signed_in.post(PATH, sent)

    assert shown.status == 409
    assert "This repair no longer waits for a decision: approved." in shown.text
    assert "The form that you sent changed nothing" in shown.text
    assert "Approved by grace@example.com Hers." in shown.text
    assert "Mine." in shown.text
    assert 'value="approve"' not in shown.html


async def test_stale_plan_keeps_what_was_typed(signed_in: Browser, double: Double) -> None:
    """It leads to the newer repair, where the choices that mean the same are made again."""
    shapes.answer(double)
    double.answers[APPROVE] = lambda _: problem(
        409, "stale_plan", "The source has changed.", newer=shapes.NEWER_ID
    )
    newer = shapes.REPAIR | {
        "id": shapes.NEWER_ID,
        "changes": [shapes.GONE | {"id": "c1"}, shapes.RETYPED | {"id": "c2"}],
    }
    double.answers[f"GET {NEWER}"] = newer

    choices = {f"choice.{key('c4')}": "gone", "why": "It was dropped."}
    shown = await previewed(signed_in, choices)

    assert shown.status == 409
    assert "A newer plan replaced this repair." in shown.text
    assert f'href="{NEWER}"' in shown.html
    assert f'name="choice.{key("c4")}" value="gone"' in shown.html

    headers = {**SAME_ORIGIN, "HX-Request": "true"}
    part = await signed_in.post(PATH, {"do": "preview", **choices}, headers=headers)
    assert f'formaction="{NEWER}"' in part.html

    carried = await signed_in.post(NEWER, {"do": "carry", **choices})

    assert carried.status == 200
    assert 'id="c1-gone" value="gone" checked' in carried.html
    assert "It was dropped." in carried.html


async def test_choices_keep_their_meaning_in_a_newer_plan(
    signed_in: Browser, double: Double
) -> None:
    """Every decided change is carried, a rename by its name wherever the newer plan lists it."""
    shapes.answer(double, state="superseded", superseded_by=shapes.NEWER_ID)
    choices = {
        f"choice.{key('c2')}": renamed("Sales_Region__c"),
        f"choice.{key('c4')}": "gone",
        "on_global_state": "refresh",
        "on_renamed_stream": "read_again",
        "why": "Renamed.",
    }
    await signed_in.get("/preferences")
    shown = await signed_in.post(PATH, {"do": "approve", **choices})
    carried = {
        name: value
        for name, value in shown.fields.items()
        if name.startswith(("choice.", "on_", "why"))
    }
    assert carried == choices | {f"choice.{key('c5')}": "apply"}

    other = {"became": ["Sales_Region__c"], "confidence": 0.3}
    first = {"became": ["Partner_Tier__c"], "alternatives": [other]}
    gone = shapes.RENAMED | {"pair": "c5", "suggestion": shapes.RENAMED["suggestion"] | first}
    newer = Decisions.of(
        shapes.REPAIR | {"changes": [gone, shapes.ADDED]}, Form([*carried.items()])
    )
    assert newer.items[0].became == ["Sales_Region__c"]
    alone = gone["suggestion"] | {"alternatives": []}
    newer = Decisions.of(
        shapes.REPAIR | {"changes": [gone | {"suggestion": alone}, shapes.ADDED]},
        Form([*carried.items()]),
    )
    assert newer.items[0].is_open


async def test_decided_meanwhile(signed_in: Browser, double: Double) -> None:
    """A form for a repair that has ended does nothing, and the reason is still to be read."""
    shapes.answer(double, state="superseded", superseded_by=shapes.NEWER_ID)
    await signed_in.get("/preferences")

    shown = await signed_in.post(PATH, {"do": "approve", "why": "My reason."})

    assert "The form that you sent changed nothing" in shown.text
    assert "My reason." in shown.html
    assert orders(double) == []

    shapes.answer(double, state="expired")
    headers = {**SAME_ORIGIN, "HX-Request": "true"}
    part = await signed_in.post(PATH, {"do": "preview", "why": "x"}, headers=headers)
    assert "This repair no longer waits for a decision: expired." in part.text
    assert f'href="{PATH}"' in part.html


async def test_approval_without_the_rejection(signed_in: Browser, double: Double) -> None:
    """What was done and what was not, even if a newer plan came in between."""
    shapes.answer(double)
    choices = {f"choice.{key('c4')}": "reject", "why": "x"}
    shown = await previewed(signed_in, choices)
    double.answers[APPROVE] = shapes.REPAIR | {"id": shapes.CHILD_ID, "state": "approved"}
    double.answers[f"POST {PATH}/reject"] = lambda _: problem(
        409, "stale_plan", "The source has changed.", newer=shapes.NEWER_ID
    )

    fields = {"do": "approve", "previewed": shown.fields["previewed"], **choices}
    answer = await signed_in.post(PATH, fields)

    assert answer.status == 409
    assert "The approval is recorded, the rejection is not." in answer.text
    assert "changed nothing" not in answer.text


async def test_forbidden(app: FastAPI, double: Double) -> None:
    """The button stays, disabled, with the scope that it needs."""
    double.scopes = ("connections:read",)
    shapes.answer(double)
    browser = Browser(app)
    await browser.sign_in(double.key)

    shown = await browser.get(PATH)

    assert "Needs repairs:decide" in shown.text
    assert "reject all" not in shown.text
    await browser.client.aclose()


async def test_outage_while_deciding(signed_in: Browser, double: Double) -> None:
    """The page says that nothing was done, and keeps the text."""
    shapes.answer(double)
    shown = await previewed(signed_in, {"why": "Kept."})
    double.answers[APPROVE] = lambda _: problem(
        503, "unavailable", "The registry is away.", headers={"Retry-After": "7"}
    )

    answer = await signed_in.post(
        PATH, {"do": "approve", "previewed": shown.fields["previewed"], "why": "Kept."}
    )

    assert answer.status == 503
    assert "The registry is away." in answer.text
    assert "Try again in 7 s." in answer.text
    assert "Kept." in answer.html


async def test_panels_may_be_away(signed_in: Browser, double: Double) -> None:
    """Policy, fields and operation degrade alone."""
    shapes.answer(double, state="applying", operation_id=shapes.OPERATION_ID)
    for route in ("policy", "catalog-versions/14/fields"):
        del double.answers[f"GET /connections/{shapes.CONNECTION_ID}/{route}"]
    double.answers[f"GET /operations/{shapes.OPERATION_ID}"] = lambda _: problem(
        503, "unavailable", "The registry is away."
    )

    shown = await signed_in.get(PATH)

    assert shown.status == 200
    assert "Operation: not available now." in shown.text


async def test_older_service_is_not_asked_to_rehearse(signed_in: Browser, double: Double) -> None:
    """One that does not know `dry_run` would carry the order out."""
    shapes.answer(double)
    double.answers["GET /repairs/summary"] = lambda _: problem(422, "invalid_request", "No UUID.")

    shown = await previewed(signed_in, {})

    assert shown.status == 503
    assert "dry_run_unsupported" in shown.text
    assert orders(double) == []
