"""A mapper whose field is gone: found by an observation, paused, decided by a person, healed."""

from __future__ import annotations

from copy import deepcopy
from typing import Any
from uuid import uuid4

import orjson
import pytest

from tests import leaks
from tests.integration.applying import apply, streams_in_airbyte
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, repairs, repairs_until
from tests.integration.observing import by_hand, fetch, observe
from tests.integration.repairing import approve, fields, put, upstream
from tests.waiting import until

Json = dict[str, Any]
WITHOUT_NAME = {name: of for name, of in ACCOUNT.items() if name != "Name"}
HASHING: Json = {
    "id": str(uuid4()),
    "type": "hashing",
    "mapperConfiguration": {
        "targetField": "Name",
        "method": "SHA-256",
        "fieldNameSuffix": "_hashed",
    },
}


async def with_mappers(mesh: Mesh, connection: Json, *mappers: Json, **config: Any) -> None:
    """Apply the catalog that Airbyte has, with these mappers of Account."""
    held = deepcopy(list(streams_in_airbyte(mesh, connection).values()))
    for pair in held:
        if pair["stream"]["name"] == "Account":
            pair["config"] |= {"mappers": list(mappers), **config}
            if not mappers:
                del pair["config"]["mappers"]
    order = {"connection_id": connection["id"], "sync_catalog": {"streams": held}}
    status, answer = await apply(mesh, order)
    assert (status, answer["changed"]) == (200, True), answer


def account(mesh: Mesh, connection: Json) -> Json:
    """The configuration of Account in Airbyte."""
    config: Json = streams_in_airbyte(mesh, connection)["Account"]["config"]
    return config


async def paused(mesh: Mesh, connection: Json) -> Json:
    """Wait until the connection is paused by a repair, and return that."""
    await until(lambda: upstream(mesh, connection)["status"] == "inactive")
    await mesh.until_true("SELECT bool_or(paused_by IS NOT NULL) FROM connections")
    (repair,) = await repairs(mesh, connection, state="proposed")
    return repair


def by_kind(repair: Json) -> dict[str, Json]:
    """The changes of a repair, by kind."""
    return {one["kind"]: one for one in repair["changes"]}


@pytest.mark.deep(after=2)
@pytest.mark.parametrize("version", ["1.1", "1.2", "1.3", "1.8", "2.0.0"])
async def test_vanished_field_with_a_hash_is_decided_by_a_person(mesh: Mesh, version: str) -> None:
    """Drift, event, pause; a plain approval changes nothing, one with a choice heals."""
    mesh.airbyte.version = version
    connection = await mesh.onboard()
    await mesh.sql.execute(
        "INSERT INTO webhooks (id, url, events)"
        """ VALUES (gen_random_uuid(), 'http://127.0.0.1:9', '["mapper.lapsed"]')"""
    )
    if version == "1.1":
        await with_mappers(mesh, connection, hashedFields=[{"fieldPath": ["Name"]}])
    else:
        await with_mappers(mesh, connection, HASHING)

    drift_id = await drift(mesh, connection, offering(WITHOUT_NAME))

    repair = await paused(mesh, connection)
    found = await fetch(mesh, f"/drifts/{drift_id}")
    assert found["severity"] == "breaking"
    assert {one["kind"] for one in found["changes"]} == {"field_removed", "mapper_lapsed"}
    lapse, removal = by_kind(repair)["mapper_lapsed"], by_kind(repair)["field_removed"]
    assert (lapse["path"], lapse["severity"], lapse["reaction"]) == (["Name"], "breaking", "pause")
    assert lapse["choices"] == ["drop", "keep_field"]
    shown = (await mesh.drift_repair_agent.get(f"/repairs/{repair['id']}")).json()
    assert {one["code"] for one in shown["catalog"]["problems"]} == {"mapper_without_field"}
    lapsed = [one for one in await mesh.events(6) if one["type"] == "mapper.lapsed"]
    assert [(one["ref"], one["code"]) for one in lapsed] == [(drift_id, "breaking")]
    sent = await mesh.sql.fetch("SELECT type, body FROM webhook_deliveries")
    assert [one["type"] for one in sent] == ["mapper.lapsed"]
    assert "mapper_lapsed" in sent[0]["body"]

    before = deepcopy(account(mesh, connection))
    orders: list[Json] = [{}, {"changes": [removal["id"]]}, {"choices": {lapse["id"]: {}}}]
    for order in orders:
        status, refused = await approve(mesh, repair, **order)
        assert (status, refused["code"]) == (422, "mapper_choice_required")
    status, refused = await approve(mesh, repair, choices={removal["id"]: {"mapper": "drop"}})
    assert (status, refused["code"]) == (422, "not_a_mapper")
    assert account(mesh, connection) == before

    status, decided = await approve(mesh, repair, choices={lapse["id"]: {"mapper": "drop"}})

    assert (status, decided["state"]) == (200, "applied"), decided
    assert by_kind(decided)["mapper_lapsed"]["decision"]["action"] == "drop_mapper"
    assert fields(mesh, connection) == {*WITHOUT_NAME, "SystemModstamp"}
    after = account(mesh, connection)
    assert (after.get("mappers", []), after["hashedFields"]) == ([], [])
    assert upstream(mesh, connection)["status"] == "active"
    assert (await observe(mesh, connection))["outcome"] == "unchanged"


async def test_hash_follows_a_rename_and_nothing_is_selected_before(mesh: Mesh) -> None:
    """A new field may be the hashed one under another name, so that no policy selects it."""
    connection = await mesh.onboard()
    await with_mappers(mesh, connection, HASHING)
    await put(mesh, connection, {"reactions": {"field": {"added": "apply", "removed": "apply"}}})

    await drift(mesh, connection, offering(WITHOUT_NAME | {"Label": "integer"}))

    repair = await paused(mesh, connection)
    lapse, removal = by_kind(repair)["mapper_lapsed"], by_kind(repair)["field_removed"]
    assert {one["reaction"] for one in repair["changes"]} == {"propose", "pause"}
    assert lapse["choices"] == ["drop", "follow", "keep_field"]
    assert "Name" in fields(mesh, connection)
    status, refused = await approve(mesh, repair, choices={lapse["id"]: {"mapper": "follow"}})
    assert (status, refused["code"]) == (422, "mapper_choice_required")

    status, decided = await approve(mesh, repair, choices={removal["id"]: {"became": ["Label"]}})

    assert (status, decided["state"]) == (200, "applied"), decided
    (mapper,) = account(mesh, connection)["mappers"]
    assert mapper["mapperConfiguration"]["targetField"] == "Label"
    assert mapper["id"] == HASHING["id"]
    assert fields(mesh, connection) == {*WITHOUT_NAME, "Label", "SystemModstamp"}


async def test_kept_field_is_not_paused_for_again(mesh: Mesh) -> None:
    """The catalog stays as it is; the next change of the source pauses nothing because of it."""
    connection = await mesh.onboard()
    await with_mappers(mesh, connection, HASHING)
    await drift(mesh, connection, offering(WITHOUT_NAME))
    repair = await paused(mesh, connection)
    lapse = by_kind(repair)["mapper_lapsed"]

    choices = {lapse["id"]: {"mapper": "keep_field"}}
    status, decided = await approve(mesh, repair, choices=choices)

    assert status in (200, 202), decided
    await until(lambda: upstream(mesh, connection)["status"] == "active")
    await repairs_until(mesh, connection, ["applied"])
    assert "Name" in fields(mesh, connection)
    (mapper,) = account(mesh, connection)["mappers"]
    assert mapper["mapperConfiguration"]["targetField"] == "Name"

    await drift(mesh, connection, offering(WITHOUT_NAME | {"Region": "string"}))

    (open_,) = await until(lambda: repairs(mesh, connection, state="proposed"))
    assert by_kind(open_).keys() >= {"mapper_lapsed", "field_removed"}
    assert {one["reaction"] for one in open_["changes"]} == {"propose"}
    assert upstream(mesh, connection)["status"] == "active"
    assert await mesh.sql.fetchval("SELECT paused_by FROM connections") is None


async def test_lapse_is_found_although_the_removal_was_ignored_earlier(mesh: Mesh) -> None:
    """An unchanged source is enough, once; it is not reported again."""
    connection = await mesh.onboard()
    await put(mesh, connection, {"reactions": {"field": {"removed": "ignore"}}})
    first = await drift(mesh, connection, offering(WITHOUT_NAME))
    await mesh.until_true("SELECT count(*) = 1 FROM plans")
    await with_mappers(mesh, connection, HASHING)

    found = await observe(mesh, connection)

    assert (found["outcome"], [one["kind"] for one in found["changes"]]) == (
        "changed",
        ["mapper_lapsed"],
    )
    assert found["drift_id"] != first
    repair = await paused(mesh, connection)
    assert set(by_kind(repair)) == {"mapper_lapsed"}
    again = await observe(mesh, connection)
    assert (again["outcome"], again["drift_id"]) == ("unchanged", None)
    assert len((await fetch(mesh, "/drifts"))["items"]) == 2
    assert len([one for one in await mesh.events(8) if one["type"] == "mapper.lapsed"]) == 1


async def test_policy_may_ignore_a_lapse_but_never_apply_one(mesh: Mesh) -> None:
    """`apply` would lose a hash without a person: it is proposed instead."""
    connection = await mesh.onboard()
    await with_mappers(mesh, connection, HASHING)
    policy: Json = {"mapper": {"lapsed": "apply"}, "field": {"removed": "apply"}}
    status, _ = await put(mesh, connection, {"reactions": policy})
    assert status == 200

    await drift(mesh, connection, offering(WITHOUT_NAME))

    (repair,) = await repairs_until(mesh, connection, ["proposed"])
    assert {one["reaction"] for one in repair["changes"]} == {"propose"}
    assert upstream(mesh, connection)["status"] == "active"
    assert "Name" in fields(mesh, connection)
    await put(mesh, connection, {"reactions": {"mapper": {"lapsed": "ignore"}}})
    await until(lambda: _kinds(mesh, connection, {"field_removed"}))


async def _kinds(mesh: Mesh, connection: Json, wanted: set[str]) -> bool:
    found = await repairs(mesh, connection, state="proposed")
    return [set(by_kind(one)) for one in found] == [wanted]


@pytest.mark.deep(after=1)
@pytest.mark.parametrize("version", ["1.3", "1.8", "2.0.0"])
async def test_heal_keeps_ids_and_keys_of_other_mappers(mesh: Mesh, version: str) -> None:
    """Airbyte finds the masked key by the mapper's id; AAM never has it."""
    mesh.airbyte.version = version
    key = leaks.canary("an AES key of a mapper")
    made: Json = {"algorithm": "AES", "mode": "CBC", "padding": "NoPadding", "key": key}
    encryption: Json = {
        "id": str(uuid4()),
        "type": "encryption",
        "mapperConfiguration": {"targetField": "Name", "fieldNameSuffix": "_aes", **made},
    }
    first = await mesh.onboard()
    account(mesh, first)["mappers"] = [encryption]
    connection = await by_hand(mesh, first)
    account(mesh, first)["mappers"] = []

    await drift(mesh, connection, offering(ACCOUNT | {"Region": "string"}))

    await until(lambda: "Region" in fields(mesh, connection))
    assert account(mesh, connection)["mappers"] == [encryption]


async def test_refusal_for_a_mapper_is_understood_and_never_quoted(mesh: Mesh) -> None:
    """Its code, stream, field and word; not its configuration."""
    connection = await mesh.onboard()
    held = deepcopy(list(streams_in_airbyte(mesh, connection).values()))
    made: Json = {"algorithm": "AES", "mode": "CBC", "padding": "NoPadding", "key": "**********"}
    made |= {"targetField": "Name", "fieldNameSuffix": "_aes"}
    (pair,) = [one for one in held if one["stream"]["name"] == "Account"]
    pair["config"]["mappers"] = [
        {"id": str(uuid4()), "type": "encryption", "mapperConfiguration": made}
    ]
    order: Json = {"connection_id": connection["id"], "sync_catalog": {"streams": held}}

    status, refused = await apply(mesh, order)

    assert (status, refused["code"]) == (422, "mapper_refused"), refused
    assert "secret-not-found" in refused["detail"]
    assert "padding" not in orjson.dumps(refused).decode()
    assert account(mesh, connection)["mappers"] == []

    pair["config"]["mappers"] = [
        HASHING | {"mapperConfiguration": HASHING["mapperConfiguration"] | {"targetField": "Gone"}}
    ]
    status, refused = await apply(mesh, order)
    assert (status, refused["code"]) == (422, "mapper_without_field")
    made["key"] = leaks.canary("an AES key in a catalog")
    pair["config"]["mappers"] = [{"type": "encryption", "mapperConfiguration": made}]
    status, refused = await apply(mesh, order)
    assert (status, refused["code"]) == (422, "secret_in_catalog")
