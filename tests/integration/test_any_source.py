"""Sources of any type, by what their connector's specification says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from shared.credential_digests import Digests
from tests import leaks
from tests.fakes.airbyte_server import WIDGETS, AirbyteServer
from tests.integration.conftest import CREDENTIALS, Mesh, Meshes
from tests.waiting import until

Json = dict[str, Any]

PASSWORD = leaks.canary("the password of the widgets")
HEADER = leaks.canary("a header of the widgets")
SECRET = leaks.canary("a secret that an order has")
ORDER: Json = {
    "source_type": WIDGETS,
    "connection_name": "Widgets",
    "credential_id": "widgets",
    "streams": ["Account"],
    "configuration": {"host": "widgets.example.org", "headers": [{"name": "X-Team"}]},
}
STORED = {
    "CREDENTIAL_WIDGETS__CREDENTIALS__AUTH_TYPE": "password",
    "CREDENTIAL_WIDGETS__CREDENTIALS__USERNAME": "aam",
    "CREDENTIAL_WIDGETS__CREDENTIALS__PASSWORD": PASSWORD,
    "CREDENTIAL_WIDGETS__HEADERS__0__VALUE": HEADER,
    "CREDENTIAL_WIDGETS__PORT": "9443",
}
WHOLE: Json = {
    "host": "widgets.example.org",
    "port": 9443,
    "credentials": {"auth_type": "password", "username": "aam", "password": PASSWORD},
    "headers": [{"name": "X-Team", "value": HEADER}],
    "tunnel": {"method": "none"},
}


@pytest.fixture
def store() -> dict[str, str]:
    """What the auth_broker's environment has; tests change it."""
    return {**CREDENTIALS, **STORED}


@pytest.fixture
async def mesh(
    store: dict[str, str], airbyte: AirbyteServer, meshes: Meshes
) -> AsyncIterator[Mesh]:
    """The services, with the credential of the widgets."""
    async with meshes.start(airbyte, repairs=False, credentials=store) as mesh:
        yield mesh


async def order(mesh: Mesh, **changes: Any) -> Any:
    """The answer to an order for the widgets."""
    return await mesh.orchestrator.post("/connections/onboard", json={**ORDER, **changes})


@pytest.mark.parametrize("named", [WIDGETS, "Widgets"])
async def test_third_type_is_onboarded_by_its_specification(mesh: Mesh, named: str) -> None:
    """The order, the credential and what the specification fills in, as one configuration."""
    answer = await order(mesh, source_type=named)

    assert answer.status_code == 201, answer.text
    assert answer.json()["source_type"] == "Widgets"
    (source,) = mesh.airbyte.sources.values()
    assert source["sourceDefinitionId"] == WIDGETS
    assert source["connectionConfiguration"] == WHOLE


# Source types


async def test_source_types_are_listed_page_by_page(mesh: Mesh) -> None:
    """By name; a search is for a part of it, in any case."""
    custom = mesh.airbyte.add_definition("widgets, of our own", {"type": "object"}, tag="0.3")

    first = (await mesh.orchestrator.get("/source-types", params={"limit": 2})).json()
    rest = (await mesh.orchestrator.get("/source-types", params={"after": first["next"]})).json()
    assert [one["name"] for one in first["items"] + rest["items"]] == [
        "Hardcoded Records",
        "Salesforce",
        "Widgets",
        "widgets, of our own",
    ]
    assert rest["next"] is None
    found = (await mesh.orchestrator.get("/source-types", params={"search": "OF OUR"})).json()
    assert found["items"] == [
        {
            "id": custom,
            "name": "widgets, of our own",
            "version": "0.3",
            "support_level": "none",
            "documentation_url": "https://docs.example.org/custom",
            "is_custom": True,
        }
    ]
    assert len(mesh.airbyte.called("source_definitions/list_for_workspace")) == 1


async def test_specification_shows_what_is_secret(mesh: Mesh) -> None:
    """Inside variants and arrays, too."""
    answer = await mesh.orchestrator.get("/source-types/Widgets/specification")

    shown = answer.json()
    assert answer.status_code == 200, shown
    assert shown["secret_paths"] == [
        "$.credentials.password",
        "$.credentials.api_key",
        "$.headers[*].value",
    ]
    assert shown["specification"]["properties"]["port"]["default"] == 8443
    by_id = await mesh.orchestrator.get(f"/source-types/{WIDGETS}/specification")
    assert by_id.json() == shown
    unknown = await mesh.orchestrator.get("/source-types/Gadgets/specification")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_source_type")


async def test_ambiguous_name_is_refused_with_candidates(mesh: Mesh) -> None:
    """The id is never ambiguous."""
    ids = {mesh.airbyte.add_definition("Gadgets", {"type": "object"}) for _ in range(2)}

    answer = await order(mesh, source_type="Gadgets", credential_id=None, configuration={})

    refusal = answer.json()
    assert (answer.status_code, refusal["code"]) == (422, "ambiguous_source_type")
    assert {one["id"] for one in refusal["candidates"]} == ids
    chosen = await order(mesh, source_type=ids.pop(), credential_id=None, configuration={})
    assert chosen.status_code == 201, chosen.text


# Orders that are refused

HEADERS: Json = {"headers": [{"name": "X-Team"}]}
HOST: Json = {"host": "widgets.example.org"} | HEADERS
REFUSED: list[tuple[Json, str, str, str]] = [
    # the configuration, the code, the path that is named, a part of the message
    (
        HOST | {"credentials": {"password": SECRET}},
        "secret_in_order",
        "$.credentials.password",
        "store of the credential",
    ),
    (
        HOST | {"credentials": {"auth_type": "password", "api_key": SECRET}},
        "secret_in_order",
        "$.credentials.api_key",
        "is a secret",
    ),
    (
        HOST | {"headers": [{"name": "X"}, {"value": {"nested": [SECRET]}}]},
        "secret_in_order",
        "$.headers[1].value",
        "is a secret",
    ),
    (
        {"host": f"secret_coordinate::{SECRET}"},
        "secret_in_order",
        "$.host",
        "references belong into the credential",
    ),
    (HOST | {"_secret": SECRET}, "reserved_key", "$._secret", "Airbyte uses"),
    (
        HOST | {"credentials": {"_secret_storage_id": SECRET}},
        "reserved_key",
        "$.credentials._secret_storage_id",
        "Airbyte uses",
    ),
    ({"hots": SECRET}, "configuration_invalid", "$.hots", "did you mean 'host'?"),
    (HOST | {SECRET + "!": 1}, "configuration_invalid", "$.…", "is not in the connector's"),
    (
        HOST | {"host": f"{SECRET} {SECRET}"},
        "configuration_invalid",
        "$.host",
        "must match the pattern",
    ),
    (HOST | {"port": 0}, "configuration_invalid", "$.port", "must be at least 1"),
    (HOST | {"port": SECRET}, "configuration_invalid", "$.port", "must be of the type integer"),
    (
        HOST | {"replication_slots": ["a", "a"]},
        "configuration_invalid",
        "$.replication_slots",
        "must not have an item twice",
    ),
    (
        HOST | {"headers": [{"name": "a"}, {"name": "b"}]},
        "configuration_invalid",
        "$.headers",
        "the same number",
    ),
    (
        HOST | {"credentials": {"auth_type": SECRET}},
        "configuration_invalid",
        "$.credentials.auth_type",
        "must be 'password' or 'key'",
    ),
]


async def test_refused_order_leaves_no_trace(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    """The path is named; the value is in no answer, row or log, and nothing was created."""
    for configuration, code, path, message in REFUSED:
        answer = await mesh.orchestrator.post(
            "/connections/onboard",
            json={**ORDER, "configuration": configuration},
            headers={"Idempotency-Key": "0123456789abcdef"},
        )

        refusal = answer.json()
        assert (answer.status_code, refusal["code"]) == (422, code), (configuration, refusal)
        (field,) = [one for one in refusal["fields"] if one.get("path") == path]
        assert message in field["message"] or message in refusal["detail"], refusal
        assert SECRET not in answer.text
    assert mesh.airbyte.sources == {}
    assert await mesh.sql.fetchval("SELECT count(*) FROM connections") == 0
    assert await mesh.sql.fetchval("SELECT count(*) FROM operations") == 0
    assert SECRET not in caplog.text


async def test_credential_that_does_not_fit_is_refused(mesh: Mesh, store: dict[str, str]) -> None:
    """Before anything is recorded; the store's own name is given, and no value."""
    prefix = "CREDENTIAL_WIDGETS__"
    cases = [
        # what the store has instead, the code, the variable, a part of the message
        (
            {"CREDENTIALS__PASSWORD": ""},
            "credential_incomplete",
            "CREDENTIALS__PASSWORD",
            "missing",
        ),
        (
            {"CREDENTIALS__PASSWORD": "abc"},
            "credential_invalid",
            "CREDENTIALS__PASSWORD",
            "least 4",
        ),
        ({"PORT": "none"}, "credential_invalid", "PORT", "must be of the type integer"),
        ({"PORT": "70000"}, "credential_invalid", "PORT", "must be at most 65535"),
        (
            {"CREDENTIALS__PASSWRD": "x"},
            "credential_invalid",
            "CREDENTIALS__PASSWRD",
            "did you mean 'password'?",
        ),
        (
            {"CREDENTIALS__AUTH_TYPE": "kye"},
            "credential_invalid",
            "CREDENTIALS__AUTH_TYPE",
            "must be 'password' or 'key'",
        ),
        ({"HEADERS": "x"}, "credential_invalid", "HEADERS__0__VALUE", "below a variable"),
    ]
    for changes, code, variable, message in cases:
        store.clear()
        store.update(STORED | {prefix + name: value for name, value in changes.items()})

        answer = await order(mesh)

        refusal = answer.json()
        assert (answer.status_code, refusal["code"]) == (422, code), refusal
        assert refusal["variable"] == prefix + variable, refusal
        assert message in refusal["detail"], refusal
        assert PASSWORD not in answer.text
    assert mesh.airbyte.sources == {}
    assert await mesh.sql.fetchval("SELECT count(*) FROM connections") == 0


async def test_order_that_needs_no_credential_needs_no_store(mesh: Mesh) -> None:
    """A type without secrets takes none; one with required secrets needs one."""
    free = mesh.airbyte.add_definition(
        "Numbers", {"type": "object", "properties": {"count": {"type": "integer"}}}
    )
    keyed = mesh.airbyte.add_definition(
        "Keyed",
        {
            "type": "object",
            "required": ["key"],
            "properties": {"key": {"type": "string", "airbyte_secret": True}},
        },
    )
    given: Json = {"configuration": {"count": 3}, "credential_id": None}

    onboarded = await order(mesh, source_type=free, **given)
    assert onboarded.status_code == 201, onboarded.text
    (source,) = mesh.airbyte.sources.values()
    assert source["connectionConfiguration"] == {"count": 3}
    refused = await order(mesh, source_type=free, credential_id="widgets", configuration={})
    assert (refused.status_code, refused.json()["code"]) == (422, "credential_not_used")
    refused = await order(mesh, source_type=keyed, credential_id=None, configuration={})
    assert (refused.status_code, refused.json()["code"]) == (422, "credential_required")
    refused = await order(mesh, credential_id=None)
    assert (refused.status_code, refused.json()["code"]) == (422, "credential_required")


async def test_unusable_specification_is_refused(mesh: Mesh) -> None:
    """Recursive, huge, deep, or referring elsewhere: 502 at once, and nothing is created."""
    doubling: Json = {"type": "object", "definitions": {"n0": {"type": "string"}}}
    for number in range(18):
        of = {"$ref": f"#/definitions/n{number}"}
        doubling["definitions"][f"n{number + 1}"] = {"properties": {"a": of, "b": of}}
    doubling["properties"] = {"all": {"$ref": "#/definitions/n18"}}
    deep: Json = {}
    for _ in range(100):
        deep = {"properties": {"a": deep}}
    unusable = {
        "refers to itself": {"properties": {"a": {"$ref": "#"}}},
        "parts": doubling,
        "deep": deep,
        "another document": {"properties": {"a": {"$ref": "http://127.0.0.1:1/x"}}},
        "refers to nothing": {"properties": {"a": {"$ref": "#/definitions/no"}}},
        "bytes": {"title": "x" * (1 << 20)},
    }
    ids = {
        message: mesh.airbyte.add_definition(message, schema)
        for message, schema in unusable.items()
    }
    for message, id_ in ids.items():
        answer = await order(mesh, source_type=id_, configuration={})

        refusal = answer.json()
        assert (answer.status_code, refusal["code"]) == (502, "specification_unusable"), refusal
        assert message in refusal["detail"]
    assert mesh.airbyte.sources == {}


# Before onboarding


async def trial(mesh: Mesh, kind: str, **changes: Any) -> Any:
    """The answer to a check or a preview of the widgets."""
    asked = {name: ORDER[name] for name in ("source_type", "credential_id", "configuration")}
    return await mesh.orchestrator.post(f"/sources/{kind}", json={**asked, **changes})


async def test_check_leaves_nothing_behind(mesh: Mesh) -> None:
    """The whole configuration is tested; no source is created, and no row has a secret."""
    answer = await trial(mesh, "check")

    assert (answer.status_code, answer.json()) == (200, {"status": "succeeded", "notes": []})
    (sent,) = mesh.airbyte.called("scheduler/sources/check_connection")
    assert sent["connectionConfiguration"] == WHOLE
    assert mesh.airbyte.sources == {}
    (row,) = await mesh.sql.fetch("SELECT * FROM source_trials")
    assert (row["purpose"], row["code"], row["is_left"]) == ("check", None, False)
    assert row["ended_at"] is not None
    assert row["requested_by"].startswith("tests")


async def test_failed_check_names_the_cause(mesh: Mesh) -> None:
    """422 with the cause, without the connector's words."""
    mesh.airbyte.fail_check(f"password authentication failed for {SECRET}")

    answer = await trial(mesh, "check")

    refusal = answer.json()
    assert (answer.status_code, refusal["code"]) == (422, "check_failed")
    assert refusal["cause"] == "authentication_failed"
    assert SECRET not in answer.text
    assert await mesh.sql.fetchval("SELECT code FROM source_trials") == "check_failed"
    invalid = await trial(mesh, "check", configuration=HOST | {"port": "x"})
    assert (invalid.status_code, invalid.json()["code"]) == (422, "configuration_invalid")
    assert await mesh.sql.fetchval("SELECT count(*) FROM source_trials") == 1


async def test_preview_shows_streams_and_deletes_its_source(mesh: Mesh) -> None:
    """With keys, cursors and fields."""
    answer = await trial(mesh, "preview")

    shown = answer.json()
    assert answer.status_code == 200, shown
    assert shown["streams"] == len(shown["items"]) == 5
    account = shown["items"][0]
    assert (account["name"], account["primary_key"]) == ("Account", [["Id"]])
    assert account["cursor"] == ["SystemModstamp"]
    assert {"name": "Id", "types": ["string", "null"]} in account["fields"]
    assert account["field_count"] == len(account["fields"])
    (created,) = mesh.airbyte.called("sources/create")
    assert created["connectionConfiguration"] == WHOLE
    assert mesh.airbyte.sources == {}
    (row,) = await mesh.sql.fetch("SELECT * FROM source_trials")
    assert str(row["id"]) in created["name"]
    assert (row["purpose"], row["code"], row["is_left"]) == ("preview", None, False)


@pytest.mark.deep(after=1)
@pytest.mark.parametrize("fault", ["discovery", "deletion", "creation"])
async def test_failed_preview_leaves_nothing_behind(
    airbyte: AirbyteServer, meshes: Meshes, store: dict[str, str], fault: str
) -> None:
    """What this process could not delete, the sweeper does."""
    changes = {"sweep_grace": "0.3", "sweep_interval": "0.2", "airbyte_timeout": "1"}
    async with meshes.start(airbyte, repairs=False, credentials=store, **changes) as mesh:
        if fault == "discovery":
            mesh.airbyte.fail_discovery("config_error", f"no such host {SECRET}")
        elif fault == "deletion":
            mesh.airbyte.fault("sources/delete", 500, times=5)
        else:
            mesh.airbyte.fault("sources/create", "reset", after_effect=True)

        answer = await trial(mesh, "preview")

        status = {"discovery": 422, "deletion": 200, "creation": 504}[fault]
        assert answer.status_code == status, answer.text
        assert SECRET not in answer.text
        await until(lambda: not mesh.airbyte.sources)
        if fault != "discovery":
            await mesh.until_true("SELECT NOT is_left FROM source_trials")


async def test_trials_are_limited(
    airbyte: AirbyteServer, meshes: Meshes, store: dict[str, str]
) -> None:
    """Per source type and credential, in 24 hours; and one at a time."""
    async with meshes.start(
        airbyte, repairs=False, credentials=store, discoveries_per_day="2"
    ) as mesh:
        mesh.airbyte.fault("scheduler/sources/check_connection", "slow", seconds=1.0)
        slow = asyncio.create_task(trial(mesh, "check"))
        await until(lambda: mesh.airbyte.called("scheduler/sources/check_connection"))
        beside = await trial(mesh, "preview")
        assert (beside.status_code, beside.json()["code"]) == (409, "trial_running")
        assert (await slow).status_code == 200
        assert (await trial(mesh, "check")).status_code == 200

        over = await trial(mesh, "check")

        assert (over.status_code, over.json()["code"]) == (429, "discovery_quota")
        same = await trial(mesh, "check", credential_id="env:widgets")
        assert (same.status_code, same.json()["code"]) == (429, "discovery_quota")
        assert int(over.headers["retry-after"]) > 80_000
        numbers: Json = {
            "source_type": "Hardcoded Records",
            "credential_id": None,
            "configuration": {},
        }
        assert (await trial(mesh, "check", **numbers)).status_code == 200


# Rotation


async def rotated(mesh: Mesh) -> list[Json]:
    """The outcome for each connection of a rotation of the widgets' credential."""
    answer = await mesh.orchestrator.post("/credentials/widgets/rotate", params={"wait": 20})
    assert answer.status_code == 200, answer.text
    connections: list[Json] = answer.json()["connections"]
    return connections


async def test_nested_secret_is_rotated(mesh: Mesh, store: dict[str, str]) -> None:
    """Only what changed is sent, and the order's part stays; no digest shows a value."""
    await order(mesh)
    (source,) = mesh.airbyte.sources.values()
    assert [one["outcome"] for one in await rotated(mesh)] == ["unchanged"]
    digests = await mesh.sql.fetchval("SELECT credential_digests::text FROM connections")
    assert set(json.loads(digests)) >= {"credentials/password", "headers/0/value", "host"}
    assert not {PASSWORD, HEADER, "9443"} & set(json.loads(digests).values())
    kept = await mesh.sql.fetchval("SELECT source_configuration::text FROM connections")
    assert json.loads(kept) == ORDER["configuration"]

    new = leaks.canary("the next password of the widgets")
    store["CREDENTIAL_WIDGETS__CREDENTIALS__PASSWORD"] = new
    assert [one["outcome"] for one in await rotated(mesh)] == ["updated"]

    changed = WHOLE | {"credentials": WHOLE["credentials"] | {"password": new}}
    assert source["connectionConfiguration"] == changed
    assert [one["outcome"] for one in await rotated(mesh)] == ["unchanged"]
    assert len(mesh.airbyte.called("sources/update")) == 1


async def test_variant_can_change_by_rotation(mesh: Mesh, store: dict[str, str]) -> None:
    """The members of the earlier variant are dropped."""
    await order(mesh)
    (source,) = mesh.airbyte.sources.values()
    for name in ("USERNAME", "PASSWORD"):
        del store[f"CREDENTIAL_WIDGETS__CREDENTIALS__{name}"]
    key = leaks.canary("the key of the widgets")
    store["CREDENTIAL_WIDGETS__CREDENTIALS__AUTH_TYPE"] = "key"
    store["CREDENTIAL_WIDGETS__CREDENTIALS__API_KEY"] = key
    store["CREDENTIAL_WIDGETS__CREDENTIALS__VERIFY"] = "no"

    assert [one["outcome"] for one in await rotated(mesh)] == ["updated"]

    given = source["connectionConfiguration"]["credentials"]
    assert given == {"auth_type": "key", "api_key": key, "verify": False}


async def test_rotation_refuses_what_does_not_fit(mesh: Mesh, store: dict[str, str]) -> None:
    """Before anything is checked or changed."""
    await order(mesh)
    store["CREDENTIAL_WIDGETS__CREDENTIALS__PASSWORD"] = "abc"

    answer = await mesh.orchestrator.post("/credentials/widgets/rotate")

    assert (answer.status_code, answer.json()["code"]) == (422, "credential_invalid")
    assert answer.json()["variable"] == "CREDENTIAL_WIDGETS__CREDENTIALS__PASSWORD"
    assert mesh.airbyte.called("sources/check_connection_for_update") == []


async def test_default_that_is_no_longer_sent_changes_nothing(mesh: Mesh) -> None:
    """Salesforce's sources of before have it among their digests."""
    connection = await mesh.onboard()
    digests = Digests(SecretStr("for the tests of this run and no other"))
    text = await mesh.sql.fetchval("SELECT credential_digests::text FROM connections")
    earlier = json.loads(text) | digests.of("salesforce-prod", {"is_sandbox": False})
    assert {"client_id", "auth_type", "is_sandbox"} <= earlier.keys()
    update = "UPDATE connections SET credential_digests = $1::jsonb, source_definition_id = NULL"
    await mesh.sql.execute(update, json.dumps(earlier))

    answer = await mesh.orchestrator.post("/credentials/salesforce-prod/rotate")

    (result,) = answer.json()["connections"]
    assert (result["connection_id"], result["outcome"]) == (connection["id"], "unchanged")


# References to secrets in Airbyte's own store


async def test_reference_is_sent_where_airbyte_has_a_store(
    airbyte: AirbyteServer, meshes: Meshes, store: dict[str, str]
) -> None:
    """Only if the setting is on, for 1.7 and newer, and only where a secret belongs."""
    name = "CREDENTIAL_WIDGETS__CREDENTIALS__PASSWORD"
    store[name] = "secret_coordinate::widgets/password"
    async with meshes.start(airbyte, repairs=False, credentials=store) as mesh:
        off = await order(mesh)
    assert (off.status_code, off.json()["code"]) == (422, "secret_references_disabled")
    assert "$.credentials.password" in off.json()["detail"]
    async with meshes.start(
        airbyte, repairs=False, credentials=store, airbyte_secret_references="true"
    ) as mesh:
        assert (await order(mesh)).status_code == 201
        (source,) = airbyte.sources.values()
        assert source["connectionConfiguration"]["credentials"]["password"] == store[name]
        store["CREDENTIAL_WIDGETS__CREDENTIALS__USERNAME"] = "secret_coordinate::user"
        misplaced = await order(mesh, connection_name="B")
        assert (misplaced.status_code, misplaced.json()["code"]) == (
            422,
            "secret_reference_misplaced",
        )
        del store["CREDENTIAL_WIDGETS__CREDENTIALS__USERNAME"]
    airbyte.version = "0.63.19"
    store["CREDENTIAL_WIDGETS__CREDENTIALS__USERNAME"] = "aam"
    async with meshes.start(
        airbyte, repairs=False, credentials=store, airbyte_secret_references="true"
    ) as mesh:
        old = await order(mesh, connection_name="C")
        assert (old.status_code, old.json()["code"]) == (422, "secret_references_unsupported")


async def test_secret_that_airbyte_would_not_restore_is_sent(
    mesh: Mesh, store: dict[str, str]
) -> None:
    """In an array; elsewhere an unchanged secret is Airbyte's mask."""
    await order(mesh)
    (source,) = mesh.airbyte.sources.values()
    store["CREDENTIAL_WIDGETS__PORT"] = "9000"

    assert [one["outcome"] for one in await rotated(mesh)] == ["updated"]

    (sent,) = mesh.airbyte.called("sources/update")
    configuration = sent["connectionConfiguration"]
    assert configuration["credentials"]["password"] == "**********"
    assert configuration["headers"] == [{"name": "X-Team", "value": HEADER}]
    assert source["connectionConfiguration"] == WHOLE | {"port": 9000}
