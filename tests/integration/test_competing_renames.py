"""Renames that compete for one new field, and whose word counts then."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.integration.conftest import Mesh
from tests.integration.drifting import offering
from tests.integration.repairing import approve, fields, proposal

Json = dict[str, Any]
TWO = {"Id": "string", "Name": "string", "Total_Amount__c": "number", "Sum_Gross__c": "number"}
ONE = {"Id": "string", "Name": "string", "TotalAmount__c": "number"}


async def wired(mesh: Mesh) -> tuple[Json, Json, Json, Json]:
    """A connection two of whose fields are gone, of which one is suggested to be the new one."""
    mesh.airbyte.offers(offering(TWO))
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(ONE))
    gone = {one["path"][0]: one for one in repair["changes"]}
    first, other = gone["Total_Amount__c"], gone["Sum_Gross__c"]
    assert first["suggestion"]["became"] == ["TotalAmount__c"]
    assert first["suggestion"]["taken_by_approve"] is True
    assert other["suggestion"] is None
    return connection, repair, first, other


async def test_a_named_rename_goes_before_a_suggested_one(mesh: Mesh) -> None:
    """Whoever names the new field for another one need not turn the suggestion down as well."""
    connection, repair, first, other = await wired(mesh)

    choices = {other["id"]: {"became": ["TotalAmount__c"]}}
    status, decided = await approve(mesh, repair, choices=choices)

    assert (status, decided["state"]) == (200, "applied"), decided
    became = {one["id"]: one["decision"]["became"] for one in decided["changes"]}
    assert (became[first["id"]], became[other["id"]]) == (None, ["TotalAmount__c"])
    assert fields(mesh, connection) == {*ONE, "SystemModstamp"}
    learned = "SELECT removed->>0, became->>0, verdict FROM knowledge"
    async with asyncio.timeout(15):
        while len(rows := await mesh.sql.fetch(learned)) < 3:  # noqa: ASYNC110 (another's doing)
            await asyncio.sleep(0.05)
    assert {tuple(row) for row in rows} == {
        ("Sum_Gross__c", "TotalAmount__c", "accepted"),
        ("Total_Amount__c", None, "accepted"),
        ("Total_Amount__c", "TotalAmount__c", "rejected"),
    }
