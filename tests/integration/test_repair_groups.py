"""The same change on several connections: one group, one decision, a result per repair."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from tests.integration.callers import ALL_BUT_DECIDE, caller
from tests.integration.conftest import Mesh
from tests.integration.drifting import drift, offering, post, repairs, repairs_until
from tests.integration.repairing import approve, fields

Json = dict[str, Any]
LESS = {"Id": "string", "Name": "string"}
RETYPED = offering({"Id": "string", "Name": "integer"})


async def several(mesh: Mesh, *offers: Json) -> list[tuple[Json, Json]]:
    """A connection for each catalog, whose source offers that now, with its proposal."""
    connections = [await mesh.onboard(connection_name=f"Org {n}") for n in range(len(offers))]
    found = []
    for connection, offered in zip(connections, offers, strict=True):
        await drift(mesh, connection, offered)
        (proposed,) = await repairs_until(mesh, connection, ["proposed"])
        found.append((connection, proposed))
    return found


async def groups(mesh: Mesh, **query: Any) -> Json:
    """A page of groups."""
    answer = await mesh.drift_repair_agent.get("/repairs/groups", params=query)
    assert answer.status_code == 200, answer.text
    page: Json = answer.json()
    return page


async def test_same_change_of_several_connections_is_one_group(mesh: Mesh) -> None:
    """In pages, the largest first; what only one connection waits for is not a group."""
    (one, _), (two, _), _ = await several(mesh, RETYPED, RETYPED, offering(LESS))

    first = await groups(mesh, limit=1)
    second = await groups(mesh, limit=1, after=first["next"])

    (removed,), (retyped,) = first["items"], second["items"]
    assert (removed["kind"], removed["path"]) == ("field_removed", ["AnnualRevenue"])
    assert (removed["connection_count"], retyped["connection_count"]) == (3, 2)
    assert [each["connection_name"] for each in removed["members"]] == ["Org 0", "Org 1", "Org 2"]
    assert {each["connection_id"] for each in retyped["members"]} == {one["id"], two["id"]}
    assert (retyped["path"], second["next"]) == (["Name"], None)


async def test_group_is_decided_at_once(mesh: Mesh) -> None:
    """Its change alone, with one reason; a repetition with the same key decides nothing more."""
    found = await several(mesh, RETYPED, RETYPED)
    (group,) = [one for one in (await groups(mesh))["items"] if one["kind"] == "field_removed"]
    order = {"verdict": "approve", "group": group["id"], "by": "Ada", "reason": "Unused."}
    key = f"decide-{uuid4()}"

    status, decided = await post(mesh, "/repairs/decide", order, idempotency_key=key)

    assert (status, [one["code"] for one in decided["items"]]) == (200, [None, None])
    for connection, proposed in found:
        applied, rest = await repairs_until(mesh, connection, ["applied", "proposed"])
        assert rest["id"] == proposed["id"]
        assert [one["path"] for one in rest["changes"]] == [["Name"]]
        (decision,) = applied["decisions"]
        assert (decision["by"], decision["reason"]) == ("Ada", "Unused.")
        assert "AnnualRevenue" not in fields(mesh, connection)
    assert await post(mesh, "/repairs/decide", order, idempotency_key=key) == (
        200,
        {"items": [{**one, "state": "applied"} for one in decided["items"]]},
    )
    status, problem = await post(mesh, "/repairs/decide", order)
    assert (status, problem["code"]) == (404, "not_found")


async def test_item_that_fails_stops_no_other(mesh: Mesh) -> None:
    """It has the code of its error; repeated with the same key, only it is tried again."""
    (one, first), (two, second) = await several(mesh, offering(LESS), offering(LESS))
    assert (await approve(mesh, first))[0] == 200
    unknown = str(uuid4())
    listed = [first["id"], unknown, second["id"]]
    order = {"verdict": "reject", "repairs": listed, "by": "Ada", "reason": "It comes back."}
    key = f"decide-{uuid4()}"

    status, decided = await post(mesh, "/repairs/decide", order, idempotency_key=key)

    assert status == 200
    results = [(each["repair_id"], each["state"], each["code"]) for each in decided["items"]]
    assert results == [
        (first["id"], None, "not_proposed"),
        (unknown, None, "not_found"),
        (second["id"], "rejected", None),
    ]
    (rejected,) = await repairs(mesh, two)
    assert rejected["decisions"][0]["reason"] == "It comes back."
    assert (await post(mesh, "/repairs/decide", order, idempotency_key=key))[1] == decided
    assert (await repairs(mesh, one))[0]["state"] == "applied"


async def test_requests_without_a_meaning_are_refused(mesh: Mesh) -> None:
    group = "0f" * 32
    for order, code in (
        ({"verdict": "reject"}, "repairs_or_group"),
        ({"verdict": "reject", "group": group, "repairs": [str(uuid4())]}, "repairs_or_group"),
        ({"verdict": "reject", "group": group, "choice": {}}, "choice_not_used"),
    ):
        status, problem = await post(mesh, "/repairs/decide", order)
        assert (status, problem["code"]) == (422, code)
    answer = await mesh.drift_repair_agent.get("/repairs/groups", params={"after": "nonsense"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor")
    async with caller(mesh, mesh.drift_repair_agent, *ALL_BUT_DECIDE) as other:
        order = {"verdict": "reject", "group": group}
        assert (await other.post("/repairs/decide", json=order)).status_code == 403
