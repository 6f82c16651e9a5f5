"""A broken or hostile Airbyte: its responses are validated, never quoted or stored unchecked."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from tests.fakes.airbyte_server import DEFAULT_CATALOG, AirbyteServer
from tests.hostile.attempts import CANARY, World
from tests.integration.conftest import Mesh

OTHER = str(uuid4())
SOURCE = {"sourceId": OTHER, "name": CANARY, "sourceDefinitionId": str(uuid4())}
ELSEWHERE = {**SOURCE, "workspaceId": OTHER}
SECRET = {
    "message": f"invalid: {CANARY}",
    "exceptionClassName": "io.airbyte.validation.json.JsonValidationException",
    "exceptionStack": [CANARY],
    "title": CANARY,
}


def fault(path: str, kind: Any) -> Callable[[AirbyteServer], None]:
    """Inject a fault into all responses of a path."""
    return lambda airbyte: airbyte.fault(path, kind, times=None)


def says(path: str, body: Any, status: int = 200) -> Callable[[AirbyteServer], None]:
    """Replace all responses of a path; its requests have no effect."""
    return lambda airbyte: airbyte.answer(path, body, status=status, effect=False, times=None)


def offers(poison: str) -> Callable[[AirbyteServer], None]:
    """Let the source offer streams with this text in their schemas."""
    catalog = copy.deepcopy(DEFAULT_CATALOG)
    for pair in catalog["streams"]:
        pair["stream"]["jsonSchema"]["description"] = poison
    return lambda airbyte: airbyte.offers(catalog)


def offers_half(airbyte: AirbyteServer) -> None:
    """Offer a schema with an unpaired surrogate, as bytes since no JSON library writes it."""
    catalog = json.dumps(DEFAULT_CATALOG).replace(
        '"jsonSchema": {', '"jsonSchema": {"x": "\\ud800",'
    )
    content = f'{{"status": "succeeded", "catalogId": "{uuid4()}", "catalog": {catalog}}}'
    airbyte.answer("commands/output/discover", content.encode(), times=None)


def nested(layers: int) -> bytes:
    """Return a nested gzip bomb."""
    content = b" " * 16_000_000
    for _ in range(layers):
        content = gzip.compress(content)
    return content


WAITS = (202, None)
CASES: dict[str, tuple[Callable[[AirbyteServer], None], tuple[int, str | None]]] = {
    "no end": (fault("sources/create", "endless"), WAITS),
    "a gzip bomb": (fault("sources/create", "gzip_bomb"), WAITS),
    "a redirect": (fault("sources/create", "redirect"), WAITS),
    "HTML": (fault("sources/create", "html_200"), WAITS),
    "a list": (says("sources/create", [SOURCE]), WAITS),
    "a source that is no UUID": (says("sources/create", {**ELSEWHERE, "sourceId": CANARY}), WAITS),
    "a source of nowhere": (says("sources/create", SOURCE), WAITS),
    "a source elsewhere": (says("sources/create", ELSEWHERE), (502, "upstream_mismatch")),
    "a secret in a refusal": (says("sources/create", SECRET, 422), (422, "upstream_rejected")),
    "a secret in a failure": (says("sources/create", SECRET, 500), WAITS),
    "a connection of another": (fault("connections/get", "other_200"), WAITS),
    "NUL in a schema": (offers(f"\0{CANARY}"), (422, "discovery_failed")),
    "half a character in a schema": (offers_half, WAITS),
}  # fmt: skip


@pytest.mark.deep(after=4)
@pytest.mark.exact
@pytest.mark.parametrize("what", CASES)
async def test_c25_onboarding_against_a_broken_airbyte(world: World, what: str) -> None:
    """Onboarding continues or fails permanently; no foreign id is stored, nothing is quoted."""
    mesh = world.mesh
    spoil, (status, code) = CASES[what]
    spoil(mesh.airbyte)

    answer = await mesh.orchestrator.post(
        "/connections/onboard",
        params={"wait": 1},
        json={**mesh.order, "connection_name": what, "prefix": f"case_{[*CASES].index(what)}_"},
    )

    mesh.airbyte.heal()
    mesh.airbyte.offers(DEFAULT_CATALOG)
    assert answer.status_code == status, answer.text
    assert code is None or answer.json()["code"] == code, answer.text
    assert CANARY not in answer.text
    row = await mesh.sql.fetchrow(
        "SELECT id, status, t::text FROM connections t WHERE name = $1", what
    )
    assert row is not None
    assert (row["status"] == "FAILED") == (code is not None)
    for table in ("operations", "connections", "events", "sync_catalog_versions"):
        rows = await mesh.sql.fetch(f"SELECT t::text FROM {table} t")  # noqa: S608 (our tables)
        assert not any(CANARY in row[0] or OTHER in row[0] for row in rows), table
    if code is not None:
        versions = "SELECT count(*) FROM sync_catalog_versions WHERE connection_id = $1"
        assert await mesh.sql.fetchval(versions, row["id"]) == 0
    assert (await mesh.orchestrator.get("/health")).status_code == 200


@pytest.mark.exact
async def test_c25_unrequested_encodings_are_not_decompressed(world: World) -> None:
    mesh = world.mesh
    for layers, encoding in ((2, "gzip, gzip"), (3, "gzip, gzip, gzip"), (1, "br"), (1, "zstd")):
        answer = await _import_with_response(mesh, nested(layers), encoding)
        assert (answer["status"], answer["code"]) == (504, "upstream_unknown")
    held = await mesh.orchestrator.get(f"/connections/{world.connection['id']}")
    assert held.json()["status"] == "ACTIVE"


async def _import_with_response(mesh: Mesh, content: bytes, encoding: str) -> dict[str, Any]:
    """Import a connection while Airbyte responds with this body; return the problem."""
    mesh.airbyte.answer("connections/get", content, times=None)
    planned = mesh.airbyte._faults[-1].answer
    assert planned is not None
    planned.headers["Content-Encoding"] = encoding
    order = {"airbyte_connection_id": str(uuid4())}
    answer = await mesh.orchestrator.post("/connections/import", json=order)
    mesh.airbyte.heal()
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.exact
async def test_c25_answer_about_another_object_is_rejected(world: World) -> None:
    mesh = world.mesh
    held = mesh.airbyte.connections[world.connection["airbyte_connection_id"]]
    order = {"airbyte_connection_id": str(uuid4())}
    mesh.airbyte.answer("connections/get", {**held, "connectionId": OTHER}, times=None)
    before = await mesh.sql.fetchval("SELECT count(*) FROM connections")

    answer = await mesh.orchestrator.post("/connections/import", json=order)

    mesh.airbyte.heal()
    assert (answer.status_code, answer.json()["code"]) == (504, "upstream_unknown")
    assert await mesh.sql.fetchval("SELECT count(*) FROM connections") == before
