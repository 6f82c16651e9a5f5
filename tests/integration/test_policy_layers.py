"""Policies of the installation, of source types and of labels, above those of connections."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import event

from services.drift_repair_agent.repairs import preview_queries
from shared import registry
from shared.auth.scopes import Scope
from shared.database import Database
from tests import factories
from tests.integration.callers import ALL_BUT_DECIDE, caller, history
from tests.integration.conftest import Mesh
from tests.integration.drifting import drift, offering, repairs_until
from tests.integration.observing import by_hand
from tests.integration.repairing import put
from tests.pools import Sql

Json = dict[str, Any]
LESS = {"Id": "string", "Name": "string"}
INSTALLATION = "/policies/installation"
TEAM = "/policies/labels/team=sales"


async def layer(mesh: Mesh, path: str, order: Json) -> Json:
    """Set a layer."""
    answer = await mesh.drift_repair_agent.put(path, json=order)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def label(mesh: Mesh, connection: Json, **labels: str | None) -> None:
    """Label a connection."""
    answer = await mesh.orchestrator.patch(
        f"/connections/{connection['id']}", json={"labels": labels}
    )
    assert answer.status_code == 200, answer.text


async def policy(mesh: Mesh, connection: Json, **query: Any) -> Json:
    """The policy in effect."""
    path = f"/connections/{connection['id']}/policy"
    answer = await mesh.drift_repair_agent.get(path, params=query)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def test_each_layer_is_nearer_than_the_one_above(mesh: Mesh) -> None:
    """Installation, source type, label, connection; deleted, the one above applies again."""
    connection = await mesh.onboard()
    await label(mesh, connection, team="sales")
    source_type = f"/policies/source-types/{connection['source_type']}"
    found = []
    for path, limit in ((INSTALLATION, 1), (source_type, 2), (TEAM, 3)):
        view = await layer(mesh, path, {"discoveries_per_day": limit, "by": "Ada"})
        assert (view["policy"], view["updated_by"]) == ({"discoveries_per_day": limit}, "Ada")
        found.append((await policy(mesh, connection))["discoveries_per_day"])
    await put(mesh, connection, {"discoveries_per_day": 4})
    assert [*found, (await policy(mesh, connection))["discoveries_per_day"]] == [1, 2, 3, 4]

    value = (await policy(mesh, connection, explain="true"))["explanation"]["values"]
    explained = value["discoveries_per_day"]
    assert (explained["value"], explained["layer"]["level"]) == (4, "connection")
    assert [(one["layer"]["name"], one["value"]) for one in explained["overrides"]] == [
        ("team", 3),
        (connection["source_type"], 2),
        (None, 1),
    ]
    await put(mesh, connection, {"discoveries_per_day": None})
    for path, rest in ((TEAM, 2), (source_type, 1), (INSTALLATION, None)):
        assert (await mesh.drift_repair_agent.delete(path)).status_code == 204
        assert (await policy(mesh, connection))["discoveries_per_day"] == rest
        assert (await mesh.drift_repair_agent.get(path)).json()["policy"] == {}


async def test_label_whose_name_sorts_first_wins(mesh: Mesh) -> None:
    """The explanation shows the other one."""
    connection = await mesh.onboard()
    await label(mesh, connection, team="sales", area="eu/west")
    await layer(mesh, TEAM, {"verify": "read_back", "credentials": "ignore"})
    await layer(mesh, "/policies/labels/area=eu/west", {"verify": "sync"})
    await layer(mesh, "/policies/labels/area=us", {"credentials": "propose"})

    found = await policy(mesh, connection, explain="true")

    assert (found["verify"], found["credentials"]) == ("sync", "ignore")
    verify = found["explanation"]["values"]["verify"]
    assert verify["layer"] == {"level": "label", "name": "area", "value": "eu/west"}
    assert [one["layer"]["name"] for one in verify["overrides"]] == ["team"]


async def test_layer_plans_its_open_repairs_again(mesh: Mesh) -> None:
    """A proposal that the layer now applies is applied, and names who set the layer."""
    connection = await mesh.onboard()
    await drift(mesh, connection, offering(LESS))
    await repairs_until(mesh, connection, ["proposed"])

    await layer(mesh, INSTALLATION, {"reactions": {"field": {"removed": "apply"}}, "by": "Ada"})

    _, applied = await repairs_until(mesh, connection, ["superseded", "applied"])
    assert applied["decisions"][0]["policy_set_by"].startswith("Ada")


async def test_layer_excludes_fields_from_onboarding_on(mesh: Mesh) -> None:
    """Its patterns are added to the default ones."""
    await layer(mesh, INSTALLATION, {"never_select": ["*password*", "AnnualRev*"]})

    connection = await mesh.onboard()

    held = mesh.airbyte.connections[connection["airbyte_connection_id"]]["syncCatalog"]
    (account,) = [one for one in held["streams"] if one["stream"]["name"] == "Account"]
    chosen = [field["fieldPath"] for field in account["config"]["selectedFields"]]
    assert ["AnnualRevenue"] not in chosen
    assert ["Name"] in chosen


async def test_import_reports_what_layers_exclude(mesh: Mesh) -> None:
    """And an imported connection has the labels from before it was archived."""
    whole = await mesh.onboard()
    held = await by_hand(mesh, whole)
    await label(mesh, held, team="sales")
    await layer(mesh, TEAM, {"discoveries_per_day": 3})
    source_type = f"/policies/source-types/{whole['source_type']}"
    await layer(mesh, source_type, {"never_select": ["AnnualRev*"]})
    async with caller(mesh, mesh.orchestrator, *ALL_BUT_DECIDE) as other:
        assert (await other.delete(f"/connections/{held['id']}")).status_code == 204
        order = {"airbyte_connection_id": held["airbyte_connection_id"]}
        answer = await other.post("/connections/import", json=order)

    (item,) = answer.json()["items"]
    assert item["never_selected"][0]["fields"] == ["AnnualRevenue"]
    again = {"id": item["connection_id"]}
    assert (await policy(mesh, again))["discoveries_per_day"] == 3


async def test_layers_limit_discoveries_in_one_statement(mesh: Mesh) -> None:
    """The smallest limit of a source's connections, each with its layers."""
    connection = await mesh.onboard()
    await label(mesh, connection, team="sales")
    await layer(mesh, INSTALLATION, {"discoveries_per_day": 9})
    await layer(mesh, TEAM, {"discoveries_per_day": 5})
    source_id, hour = UUID(connection["airbyte_source_id"]), timedelta(hours=1)
    db = Database.at(mesh.settings.registry_address, application="test")
    statements: list[str] = []
    async with db.read() as session:
        assert db._engine is not None
        event.listen(
            db._engine.sync_engine,
            "before_cursor_execute",
            lambda *given: statements.append(given[2]),
        )
        loads = await registry.source_loads(
            session, [source_id], every=hour, recent=hour, renewing_types=()
        )
    await db.close()

    assert loads[source_id].policy_limit == 5
    assert len([one for one in statements if "policy_layers" in one]) == 1


async def test_history_of_layers(mesh: Mesh) -> None:
    """Who set and deleted which layer; a request that changes nothing is not in it."""
    await layer(mesh, TEAM, {"verify": "sync", "by": "Ada"})
    await layer(mesh, TEAM, {"verify": "sync", "by": "Bob"})
    await mesh.drift_repair_agent.delete(TEAM)
    await mesh.drift_repair_agent.delete(TEAM)

    changes = (await history(mesh, "/policies"))["items"]

    place = {"level": "label", "name": "team", "value": "sales"}
    assert [one["change"]["layer"] for one in changes] == [place] * 2
    assert [one["change"].get("deleted") for one in changes] == [True, None]
    assert changes[1]["by"] == "Ada"
    assert (await mesh.drift_repair_agent.get("/policies")).json()["items"] == []


async def test_label_with_a_policy_needs_repairs_decide(mesh: Mesh) -> None:
    """Setting or removing it changes the connection's policy; other labels do not."""
    connection = await mesh.onboard()
    await layer(mesh, TEAM, {"reactions": {"field": {"removed": "apply"}}})
    path = f"/connections/{connection['id']}"

    async with caller(mesh, mesh.orchestrator, *ALL_BUT_DECIDE) as other:
        answer = await other.patch(path, json={"labels": {"team": "sales"}})
        assert (answer.status_code, answer.json()["scope"]) == (403, Scope.REPAIRS_DECIDE)
        answer = await other.patch(path, json={"labels": {"team": "support"}})
        assert answer.status_code == 200, answer.text
    await label(mesh, connection, team="sales")
    async with caller(mesh, mesh.orchestrator, *ALL_BUT_DECIDE) as other:
        assert (await other.patch(path, json={"labels": {"team": None}})).status_code == 403


async def test_invalid_layers_are_refused(mesh: Mesh) -> None:
    for path, order, code in (
        (INSTALLATION, {"reactions": {"table": {"added": "apply"}}}, "unknown_policy_entry"),
        (INSTALLATION, {}, "empty_policy"),
        ("/policies/labels/team", {"verify": "sync"}, "invalid_label"),
    ):
        answer = await mesh.drift_repair_agent.put(path, json=order)
        assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_preview_shows_what_a_policy_would_have_done(mesh: Mesh) -> None:
    """Per change the reaction now and with it, newest drift first, in pages; nothing changes."""
    connection = await mesh.onboard()
    mesh.airbyte.add_field("Account", "Tier__c")
    path = f"/connections/{connection['id']}"
    assert (await mesh.schema_observer.post(f"{path}/observe")).json()["outcome"] == "changed"
    await repairs_until(mesh, connection, ["applied"])
    await drift(mesh, connection, offering(LESS))
    await repairs_until(mesh, connection, ["applied", "proposed"])
    order = {
        "reactions": {"field": {"added": "propose", "removed": "apply"}},
        "never_select": ["tier*"],
    }

    url = f"{path}/policy/preview"
    first = (await mesh.drift_repair_agent.post(url, json=order, params={"limit": 1})).json()
    query = {"after": first["next"], "limit": 1}
    second = (await mesh.drift_repair_agent.post(url, json=order, params=query)).json()

    (newest,), (oldest,) = first["items"], second["items"]
    assert {tuple(one["path"]): (one["now"], one["previewed"]) for one in newest["changes"]} == {
        ("AnnualRevenue",): ("propose", "apply"),
        ("Tier__c",): ("propose", "apply"),
    }
    assert (newest["different"], newest["change_count"], second["next"]) == (2, 2, None)
    (added,) = oldest["changes"]
    assert (added["path"], added["now"], added["previewed"]) == (["Tier__c"], "apply", "propose")
    assert (await policy(mesh, connection))["own"] == {}

    hiding = {"never_select": ["tier*"]}
    answer = await mesh.drift_repair_agent.post(url, json=hiding, params={"limit": 5})
    found = [
        [(one["now"], one["previewed"]) for one in d["changes"]] for d in answer.json()["items"]
    ]
    assert found[1] == [("apply", "exclude")]
    assert await mesh.sql.fetchval("SELECT count(*) FROM policies") == 0


async def test_preview_reads_the_newest_drifts_and_repairs(db: Database, sql: Sql) -> None:
    """In pages, equal times too; of a drift with many repairs the newest, the last of them last."""
    snapshot, at = uuid4(), datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
    await sql.execute(
        "INSERT INTO snapshots (id, airbyte_source_id, raw_hashes, stream_hashes)"
        " VALUES ($1, gen_random_uuid(), '', '')",
        snapshot,
    )
    async with db.transaction() as session:
        row = factories.connection()
        session.add(row)
    for number, hours in enumerate((0, 0, 0, 1)):
        await sql.execute(
            "INSERT INTO drifts (id, connection_id, after_snapshot_id, head_version, severity,"
            " affects_sync, changes, first_seen_at)"
            " VALUES (gen_random_uuid(), $1, $2, $3, 'harmless', true, '[]', $4)",
            row.id,
            snapshot,
            number,
            at - timedelta(hours=hours),
        )
    pages, after = [], None
    async with db.read() as session:
        for _ in range(5):
            found = await preview_queries.newest_drifts(session, row.id, after=after, limit=1)
            pages += [(one.first_seen_at, one.id) for one in found]
            after = pages[-1]
    assert len(pages) == 4
    assert pages == sorted(pages, reverse=True)
    newest = pages[0][1]
    await sql.execute(
        "INSERT INTO repairs (id, connection_id, drift_id, state, base_version, changes,"
        " created_at, ended_at) SELECT gen_random_uuid(), $1, $2, 'superseded', 1,"
        " jsonb_build_array(n), $3::timestamptz + n * interval '1 second', $3"
        " FROM generate_series(12, 1, -1) n",
        row.id,
        newest,
        at,
    )

    async with db.read() as session:
        changes = await preview_queries.changes_of_drifts(session, [one for _, one in pages])

    assert changes == {newest: [f"[{n}]" for n in range(3, 13)]}


async def test_preview_is_of_few_drifts(mesh: Mesh) -> None:
    """Each costs as much as planning for it, so a request has at most twenty."""
    connection = await mesh.onboard()
    url = f"/connections/{connection['id']}/policy/preview"
    order = {"verify": "sync"}

    answers = [
        await mesh.drift_repair_agent.post(url, json=order, params={"limit": limit})
        for limit in (20, 21)
    ]

    assert [one.status_code for one in answers] == [200, 422]
