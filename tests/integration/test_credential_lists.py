"""Lists about credentials: references and their state, and who read them; never a value."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from shared.auth.scopes import Scope
from tests.integration.callers import caller
from tests.integration.conftest import CANARY, Mesh
from tests.integration.paging import pages

Json = dict[str, Any]
AT = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


async def credentials(mesh: Mesh, **query: Any) -> list[Json]:
    """A page of references."""
    answer = await mesh.orchestrator.get("/credentials", params=query)
    assert answer.status_code == 200, answer.text
    assert CANARY not in answer.text
    items: list[Json] = answer.json()["items"]
    return items


async def test_credentials_are_listed_by_reference(mesh: Mesh) -> None:
    """With the connections that use each, and what is known of its state."""
    one = await mesh.onboard()
    two = await mesh.onboard(connection_name="Another")
    (found,) = await credentials(mesh)
    assert (found["credential_id"], found["store"], found["state"]) == (
        "salesforce-prod",
        None,
        "in_step",
    )
    assert [each["name"] for each in found["connections"]] == ["Another", "Salesforce production"]
    assert (found["connection_count"], found["source_types"]) == (2, ["Salesforce"])
    assert found["rotated_at"] is None

    update = "UPDATE connections SET {} WHERE id = $1"
    values = "credential_id = 'vault:crm', credential_rejected_since = now(),"
    cause = " credential_rejected_cause = 'credential_rejected'"
    await mesh.sql.execute(update.format(values + cause), UUID(two["id"]))
    await mesh.sql.execute(update.format("credential_changed_at = now()"), UUID(one["id"]))
    await mesh.sql.execute(
        "INSERT INTO timeline_events (id, connection_id, type, at)"
        " SELECT gen_random_uuid(), $1, type, $2 FROM unnest($3::text[]) type",
        UUID(one["id"]),
        AT,
        ["credential.rotated", "credential.rejected"],
    )
    changed, rejected = await credentials(mesh)
    assert (changed["state"], changed["rotated_at"]) == ("changed", "2026-11-24T09:30:00.000000Z")
    assert (rejected["store"], rejected["state"], rejected["rejected_cause"]) == (
        "vault",
        "rejected",
        "credential_rejected",
    )
    assert await credentials(mesh, rejected=True) == [rejected]
    assert await credentials(mesh, rejected=False) == [changed]
    assert await pages(mesh.orchestrator, "/credentials", limit=1) == [[changed], [rejected]]
    wrong = await mesh.orchestrator.get("/credentials", params={"after": "not one"})
    assert wrong.status_code == 422


async def test_archived_connections_use_no_credential(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    assert (await mesh.orchestrator.delete(f"/connections/{connection['id']}")).status_code == 204
    assert await credentials(mesh) == []


async def add_reads(mesh: Mesh, count: int, **changes: Any) -> None:
    """Reads at one time, without the broker."""
    row = {"caller": "service orchestrator", "credential_id": "crm", "result": "granted", **changes}
    await mesh.sql.execute(
        "INSERT INTO credential_audit (at, caller, jti, credential_id, source_type, result,"
        " request_id) SELECT $1, $2, gen_random_uuid()::text, $3, 'Salesforce', $4, n::text"
        " FROM generate_series(1, $5::int) n",
        changes.get("at", AT),
        row["caller"],
        row["credential_id"],
        row["result"],
        count,
    )


async def test_reads_of_credentials_are_listed(mesh: Mesh) -> None:
    """Newest first, refused ones too; for admins only, and without the id of a token."""
    await mesh.onboard()
    tokens = [row[0] for row in await mesh.sql.fetch("SELECT jti FROM credential_audit")]
    answer = await mesh.orchestrator.get("/credential-reads")
    found = answer.json()["items"]
    assert {(one["credential_id"], one["result"]) for one in found} == {
        ("salesforce-prod", "granted")
    }
    assert {one["reader"] for one in found} == {"service orchestrator"}
    assert len(found) == len(tokens) > 0
    assert [token for token in tokens if token in answer.text] == []
    assert CANARY not in answer.text

    await mesh.sql.execute("DELETE FROM credential_audit")
    await add_reads(mesh, 5)
    await add_reads(mesh, 2, caller="service other", result="wrong_credential")
    await add_reads(mesh, 1, credential_id="vault:crm", at=AT + timedelta(seconds=1))
    whole = (await mesh.orchestrator.get("/credential-reads")).json()["items"]
    assert [len(page) for page in await pages(mesh.orchestrator, "/credential-reads", limit=3)] == [
        *(3, 3, 2)
    ]
    paged = await pages(mesh.orchestrator, "/credential-reads", limit=1)
    assert [one for page in paged for one in page] == whole
    assert (len(whole), whole[0]["credential_id"]) == (8, "vault:crm")
    for query, count in (
        ({"credential_id": "crm"}, 7),
        ({"reader": "service other"}, 2),
        ({"reader": "service other", "credential_id": "vault:crm"}, 0),
    ):
        listed = await mesh.orchestrator.get("/credential-reads", params=query)
        assert len(listed.json()["items"]) == count, query


async def test_only_admins_see_reads(mesh: Mesh) -> None:
    path = "/credential-reads"
    async with caller(mesh, mesh.orchestrator, Scope.CONNECTIONS_READ) as reader:
        assert (await reader.get("/credentials")).status_code == 200
        assert (await reader.get(path)).status_code == 403
    async with caller(mesh, mesh.orchestrator, Scope.ADMIN) as admin:
        assert (await admin.get(path)).status_code == 200
        assert (await admin.get("/credentials")).status_code == 403
        # Cursors of other lists: their ids are no numbers.
        key = (await admin.get("/api-keys", params={"limit": 1})).json()["next"]
        for wrong in ("AA", key, "MjAyNi0xMS0yNFQwOTozMDowMC4wMDAwMDAgOTk5OTk5OTk5OTk5OTk5OTk5OTk"):
            answer = await admin.get(path, params={"after": wrong})
            assert answer.json()["code"] == "invalid_cursor", json.dumps(wrong)
