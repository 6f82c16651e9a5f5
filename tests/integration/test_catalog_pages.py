"""Pages of a catalog's streams and fields, and of the difference between two catalogs."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from tests.fakes.airbyte_server import catalog, stream
from tests.integration.applying import GREW, apply, discovered
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering
from tests.integration.paging import pages

Json = dict[str, Any]
NAMES = [
    (None, "%"),
    (None, "A"),
    (None, "a"),
    (None, "a/b"),
    (None, "z"),
    ("public", "A"),
    ("public", "Ünï"),
    ("zoo", "a_b"),
]


async def add_version(mesh: Mesh, connection: Json, number: int, streams: list[Json]) -> str:
    """A version with these streams; the path of its connection's versions."""
    await mesh.sql.execute(
        "INSERT INTO sync_catalog_versions"
        " (id, connection_id, version_number, sync_catalog, fingerprint, origin)"
        " VALUES (gen_random_uuid(), $1, $2, $3, 'x', 'repair')",
        UUID(connection["id"]),
        number,
        orjson.dumps({"streams": streams}).decode(),
    )
    return f"/connections/{connection['id']}/catalog-versions"


def configured(name: str, namespace: str | None, fields: int = 3, **config: Any) -> Json:
    """A stream with its configuration."""
    names = [f"F{number}" for number in range(fields)]
    (pair,) = catalog(stream(name, names, cursor=None, key=None, namespace=namespace))["streams"]
    return {"stream": pair["stream"], "config": {**pair["config"], "selected": True, **config}}


async def test_streams_are_paged_by_namespace_and_name(mesh: Mesh) -> None:
    """Each once, whatever the order of the catalog, with its settings and counts."""
    connection = await mesh.onboard()
    streams = [configured(name, namespace) for namespace, name in reversed(NAMES)]
    streams[0]["config"] |= {
        "fieldSelectionEnabled": True,
        "selectedFields": [{"fieldPath": ["F1"]}],
        "syncMode": "incremental",
        "cursorField": ["F1"],
        "primaryKey": [["F1"], ["F2"]],
    }
    path = f"{await add_version(mesh, connection, 5, streams)}/5/streams"

    listed = await pages(mesh.orchestrator, path, limit=2)

    found = [(one["namespace"], one["name"]) for page in listed for one in page]
    assert found == NAMES
    assert [len(page) for page in listed] == [2, 2, 2, 2]
    last = listed[-1][-1]
    assert (last["fields"], last["selected_fields"], last["mappers"]) == (3, 1, 0)
    assert (last["sync_mode"], last["cursor_field"]) == ("incremental", ["F1"])
    assert last["primary_key"] == [["F1"], ["F2"]]
    assert (listed[0][0]["selected_fields"], listed[0][0]["cursor_field"]) == (3, None)


@pytest.mark.parametrize(
    "search, expected",
    [
        ("a", ["A", "a", "a/b", "A", "a_b"]),
        ("%", ["%"]),
        ("_", ["a_b"]),
        ("PUBL", ["A", "Ünï"]),
        ("nope", []),
    ],
)
async def test_streams_are_searched(mesh: Mesh, search: str, expected: list[str]) -> None:
    """A part of the name or the namespace, in any case, and no pattern."""
    connection = await mesh.onboard()
    streams = [configured(name, namespace) for namespace, name in NAMES]
    path = f"{await add_version(mesh, connection, 5, streams)}/5/streams"

    answer = await mesh.orchestrator.get(path, params={"search": search})

    assert sorted(one["name"] for one in answer.json()["items"]) == sorted(expected)


async def test_fields_of_a_stream_are_paged(mesh: Mesh) -> None:
    """By name, with type; a stream is found by its namespace, too."""
    connection = await mesh.onboard()
    streams = [
        configured("Wide", None, 450, primaryKey=[["F7"]], cursorField=["F9"]),
        configured("Wide", "public", 1),
        configured("a/b", None, 1),
    ]
    path = f"{await add_version(mesh, connection, 5, streams)}/5/fields"

    listed = await pages(mesh.orchestrator, path, stream="Wide", limit=200)

    assert [len(page) for page in listed] == [200, 200, 50]
    fields = [one for page in listed for one in page]
    assert [one["name"] for one in fields] == sorted(f"F{number}" for number in range(450))
    assert {orjson.dumps(one["type"]) for one in fields} == {b'{"type":["null","string"]}'}
    assert [one["name"] for one in fields if one["is_key"]] == ["F7"]
    assert [one["name"] for one in fields if one["is_cursor"]] == ["F9"]
    assert all(one["selected"] for one in fields)
    default = (await mesh.orchestrator.get(path, params={"stream": "Wide"})).json()
    assert len(default["items"]) == 200
    searched = {"stream": "Wide", "search": "f44"}
    (page,) = await pages(mesh.orchestrator, path, **searched)
    assert [one["name"] for one in page] == ["F44", *(f"F44{number}" for number in range(10))]
    for query in ({"stream": "Wide", "namespace": "public"}, {"stream": "a/b"}):
        (page,) = await pages(mesh.orchestrator, path, **query)
        assert [one["name"] for one in page] == ["F0"]


async def test_unknown_parts_are_404_and_invalid_ones_422(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    at = f"/connections/{connection['id']}/catalog-versions"
    elsewhere = f"/connections/{uuid4()}/catalog-versions"

    for path, query, status in (
        (f"{at}/9/streams", {}, 404),
        (f"{elsewhere}/1/streams", {}, 404),
        (f"{at}/9/fields", {"stream": "Account"}, 404),
        (f"{at}/1/fields", {"stream": "Nope"}, 404),
        (f"{at}/1/fields", {"stream": "Account", "namespace": "nope"}, 404),
        (f"{at}/1/fields", {}, 422),
        (f"{at}/1/fields", {"stream": "a\0b"}, 422),
        (f"{at}/1/streams", {"after": "nonsense"}, 422),
        (f"{at}/1/streams", {"after": "WyJhXHUwMDAwIiwiYiJd"}, 422),
        (f"{at}/1/streams", {"search": "\0"}, 422),
        (f"{at}/1/diff/9", {}, 404),
        (f"{at}/1/diff/9/summary", {}, 404),
        (f"{at}/9/diff/1/summary", {}, 404),
    ):
        answer = await mesh.orchestrator.get(path, params=query)
        assert answer.status_code == status, (path, query, answer.text)


async def test_diff_is_paged_and_summarized(mesh: Mesh) -> None:
    """The pages have the same changes as the whole; the summary counts them by stream."""
    connection = await mesh.onboard()
    before = [configured(name, namespace) for namespace, name in NAMES]
    after = [configured(name, namespace) for namespace, name in NAMES[1:]]
    after += [configured("New", None)]
    after[0] = configured("A", None, 6, syncMode="full_refresh", cursorField=["F2"])
    after[1]["stream"]["jsonSchema"]["description"] = "Only described otherwise."
    await add_version(mesh, connection, 5, before)
    path = f"{await add_version(mesh, connection, 6, after)}/5/diff/6"

    whole = (await mesh.orchestrator.get(path)).json()

    kinds = [one["kind"] for one in whole["schema_changes"]]
    assert kinds == ["stream_removed", "field_added", "field_added", "field_added", "stream_added"]
    assert whole["next"] is None
    changes, position = [], 0
    while True:
        page = (await mesh.orchestrator.get(path, params={"limit": 2, "after": position})).json()
        changes += page["schema_changes"] + page["config_changes"]
        if page["next"] is None:
            break
        position = int(page["next"])
    assert changes == whole["schema_changes"] + whole["config_changes"]
    one = (await mesh.orchestrator.get(path, params={"stream": "A"})).json()
    expected = [
        change
        for change in whole["schema_changes"]
        if change["stream"] == {"namespace": None, "name": "A"}
    ]
    assert one["schema_changes"] == expected
    nothing = await mesh.orchestrator.get(path, params={"stream": "A", "namespace": "public"})
    assert nothing.json()["schema_changes"] == []

    listed = await pages(mesh.orchestrator, f"{path}/summary", limit=2)

    items = [item for page in listed for item in page]
    assert [(item["stream"]["name"], item["change"]) for item in items] == [
        ("%", "removed"),
        ("A", "changed"),
        ("New", "added"),
    ]
    assert items[1]["schema_changes"] == 3
    assert items[1]["by_kind"]["field_added"] == 3
    assert sum(item["schema_changes"] for item in items) == len(whole["schema_changes"])
    assert sum(item["config_changes"] for item in items) == len(whole["config_changes"])
    (page,) = await pages(mesh.orchestrator, f"{path}/summary", search="new")
    assert [item["stream"]["name"] for item in page] == ["New"]


async def test_diff_of_equal_streams_is_empty(mesh: Mesh) -> None:
    """In other order; and of a version with itself."""
    connection = await mesh.onboard()
    mesh.airbyte.offers(GREW)
    await apply(mesh, await discovered(mesh, connection))
    path = f"/connections/{connection['id']}/catalog-versions/2/diff/2"

    assert (await mesh.orchestrator.get(path)).json() == {
        "from_version": 2,
        "to_version": 2,
        "schema_changes": [],
        "config_changes": [],
        "next": None,
    }
    assert (await mesh.orchestrator.get(f"{path}/summary")).json() == {"items": [], "next": None}


async def test_diff_of_snapshots_is_paged_and_summarized(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    offered = offering({"Id": "string", "Name": "integer", "Region__c": "string"})
    offered["streams"][1]["stream"]["jsonSchema"]["properties"]["Extra"] = {"type": "string"}
    await drift(mesh, connection, offered)
    snapshots = f"/connections/{connection['id']}/snapshots"
    newest, oldest = (await mesh.schema_observer.get(snapshots)).json()["items"]
    path = f"{snapshots}/{oldest['snapshot_id']}/diff/{newest['snapshot_id']}"

    whole = (await mesh.schema_observer.get(path)).json()

    page = (await mesh.schema_observer.get(path, params={"limit": 2})).json()
    assert (page["changes"], page["next"]) == (whole["changes"][:2], "2")
    rest = (await mesh.schema_observer.get(path, params={"limit": 500, "after": 2})).json()
    assert (rest["changes"], rest["next"]) == (whole["changes"][2:], None)
    one = (await mesh.schema_observer.get(path, params={"stream": "Contact"})).json()
    assert [change["path"] for change in one["changes"]] == [["Extra"]]
    listed = await pages(mesh.schema_observer, f"{path}/summary", limit=1)
    items = [item for page in listed for item in page]
    assert [(item["stream"]["name"], item["schema_changes"]) for item in items] == [
        ("Account", len(set(ACCOUNT) ^ {"Id", "Name", "Region__c"}) + 1),
        ("Contact", 1),
    ]
    assert (await pages(mesh.schema_observer, f"{path}/summary", search="nope")) == [[]]
