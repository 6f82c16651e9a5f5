"""Four real connectors in a complete mesh: onboarded by specification, synced, drifted and healed.

The two manifest connectors drift while they run, since the sample API serves its schemas. The
schemas of faker and of GitHub's connector are part of a release, so they drift by an upgrade:
GitHub's between two published releases, faker to a release that this test builds.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from local import mesh_client
from local.airbyte.connector import PINNED
from local.airbyte.connector_store import Store
from local.demo_steps import NO_SCHEDULED_OBSERVATIONS
from local.environment import given_environment
from local.mesh_client import Mesh, MeshConnection, StepFailed
from local.processes import servers
from local.settings import Settings
from local.supervisor import Stack
from tests import leaks
from tests.integration.local.airbyte_stage import CONNECTORS
from tests.journeys import github

Json = dict[str, Any]
NEXT_FAKER = "7.3.0"
BEFORE = f"source-faker=={PINNED['source-faker'].version} source-github==2.0.0"
AFTER = f"source-faker=={NEXT_FAKER} source-github"

pytestmark = [pytest.mark.deep, pytest.mark.timeout(900)]  # connectors may have to be installed


async def test_four_connectors_are_onboarded_synced_and_healed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in one mesh, which is restarted for the newer releases."""
    monkeypatch.setattr(mesh_client, "SYNC_TIMEOUT_S", 400.0)  # a busy machine starts them slowly
    monkeypatch.setattr(mesh_client, "REPAIR_TIMEOUT_S", 200.0)
    token = leaks.canary("a GitHub token")
    folder = servers.temporary_dir()
    try:
        async with github.running(token=token, folder=tmp_path / "github") as leads_to_github:
            environment = given_environment() | {
                **NO_SCHEDULED_OBSERVATIONS,
                "LOCAL_AIRBYTE_CONNECTOR_ENV": json.dumps({"source-github": leads_to_github}),
                "CREDENTIAL_GITHUB__CREDENTIALS__PERSONAL_ACCESS_TOKEN": token,
                "SAMPLE_API_API_KEY": leaks.canary("the shop's API key"),
                "SAMPLE_API_CLIENT_SECRET": leaks.canary("the desk's client secret"),
            }
            settings = Settings(connectors_dir=await connectors(tmp_path)).for_another_mesh(
                folder, servers.free_ports(len(Settings.port_names()))
            )
            async with running(settings, BEFORE, environment) as stack:
                mesh = Mesh(stack)
                shop = await shop_is_onboarded_and_healed(mesh)
                desk = await desk_is_onboarded_and_healed(mesh)
                faker = await faker_is_onboarded(mesh)
                hub = await github_is_onboarded(mesh)
                assert len({shop.id, desk.id, faker.id, hub.id}) == 4
            async with running(settings, AFTER, environment) as stack:
                mesh = Mesh(stack)
                await faker_is_healed(MeshConnection(mesh, faker.id))
                await github_is_healed(MeshConnection(mesh, hub.id))
            leaks.add_mesh(folder)
    finally:
        servers.remove(folder / "postgres")
        shutil.rmtree(folder, ignore_errors=True)


def running(settings: Settings, packages: str, environment: dict[str, str]) -> Stack:
    """Run the mesh with the sample API and these connectors."""
    wanted = settings.model_copy(update={"sample_api": True, "connectors": packages})
    return Stack(wanted, environment=environment, postgres_options=servers.THROWAWAY_OPTIONS)


async def connectors(tmp_path: Path) -> Path:
    """Return the installed connectors, and a faker release with other fields of `users`."""
    shared = Store(CONNECTORS)
    for text in [*BEFORE.split(), "source-github", "source-declarative-manifest"]:
        await asyncio.to_thread(shared.install, await asyncio.to_thread(shared.choose, text))
    store = Store(tmp_path / "connectors")
    store.directory.mkdir()
    for path in CONNECTORS.resolve().iterdir():
        if path.suffix != ".lock":
            (store.directory / path.name).symlink_to(path.resolve())
    _release_faker(store)
    return store.directory


def _release_faker(store: Store) -> None:
    faker = PINNED["source-faker"]
    (package,) = store.home(faker).glob("lib/python*/site-packages/source_faker")
    home = store.directory / f"source-faker-{NEXT_FAKER}"
    shutil.copytree(package, home / "code" / "source_faker")
    schema_file = home / "code" / "source_faker" / "schemas" / "users.json"
    schema = json.loads(schema_file.read_text())
    del schema["properties"]["blood_type"]
    schema["properties"]["loyalty_points"] = {"type": "integer"}
    schema_file.write_text(json.dumps(schema))
    program = home / "bin" / "source-faker"
    program.parent.mkdir()
    program.write_text(
        f"#!{store.home(faker) / 'bin' / 'python'}\n"
        f"import sys\nsys.path.insert(0, {str(home / 'code')!r})\n"
        "from source_faker.run import run\nrun()\n"
    )
    program.chmod(0o755)
    record = f"# Requires-Python: {faker.requires_python}\n"
    (store.directory / f"source-faker-{NEXT_FAKER}.txt").write_text(record)
    (home / "complete").write_text(record)


async def onboarded(mesh: Mesh, **order: Any) -> MeshConnection:
    """Onboard a connection with one request, and sync it once."""
    made = await mesh.ask("orchestrator", "POST", "/connections/onboard", order, expect=201)
    assert (made["status"], made["catalog_version"]) == ("ACTIVE", 1)
    one = MeshConnection(mesh, made["id"])
    await one.synced()
    await one.observed("unchanged")
    return one


async def approved(one: MeshConnection, proposal: Json) -> None:
    """Approve a repair; read it again if a suggestion was added meanwhile."""
    for attempt in range(3):
        try:
            repair = await one.decide(
                proposal, "approve", "Upgraded the connector.", continuity="new_column"
            )
        except StepFailed as error:
            if "409" not in str(error) or attempt == 2:
                raise
            path = f"/repairs/{proposal['id']}"
            proposal = await one.mesh.ask("drift_repair_agent", "GET", path)
        else:
            assert repair["state"] == "applied"
            return


async def changed(mesh: Mesh, change: str, api: str, stream: str, **more: Any) -> None:
    """Change the sample API."""
    order = {"change": change, "api": api, "stream": stream, **more}
    await mesh.ask("sample_api", "POST", "/control/changes", order)


async def shop_is_onboarded_and_healed(mesh: Mesh) -> MeshConnection:
    """A new field is added by the policy; a rename is suggested, and then approved."""
    shop = await onboarded(
        mesh,
        source_type="Sample Shop",
        connection_name="Shop",
        credential_id="sample-shop",
        configuration={"base_url": f"{mesh.stack.url_of('sample_api')}/api/shop"},
        streams=["customers", "orders"],
    )
    assert (await mesh.count("customers"), await mesh.count("orders")) == (60, 150)

    await changed(mesh, "add", "shop", "customers", path=["region"], values=["north", "south"])
    await changed(mesh, "touch", "shop", "customers", count=60)
    repair = await shop.healed()
    assert [(one["what"], one["path"]) for one in repair["changes"]] == [("added", ["region"])]
    await shop.synced()
    assert await mesh.count("customers", "region IN ('north', 'south')") == 60

    await changed(mesh, "rename", "shop", "customers", path=["email"], to="email_address")
    await changed(mesh, "touch", "shop", "customers", count=60)
    proposal = await shop.proposed()
    suggested = [one["suggestion"] for one in proposal["changes"] if one["suggestion"]]
    assert [one["became"] for one in suggested] == [["email_address"]]
    repair = await shop.decide(
        proposal, "approve", "Renamed in release 2.", continuity="new_column"
    )
    assert repair["state"] == "applied"
    await shop.synced()
    assert await mesh.count("customers", "email_address IS NOT NULL") == 60
    assert await mesh.count("customers") == 60
    return shop


async def desk_is_onboarded_and_healed(mesh: Mesh) -> MeshConnection:
    """Nested fields are added and removed; the removal waits for approval."""
    desk = await onboarded(
        mesh,
        source_type="Sample Desk",
        connection_name="Desk",
        credential_id="sample-desk",
        configuration={"base_url": f"{mesh.stack.url_of('sample_api')}/api/desk"},
        streams=["tickets"],
    )
    assert await mesh.count("tickets") == 120

    path = ["requester", "contact", "mobile"]
    await changed(mesh, "add", "desk", "tickets", path=path, values=["1", "2"])
    await changed(mesh, "touch", "desk", "tickets", count=120)
    repair = await desk.healed()
    assert [(one["what"], one["path"]) for one in repair["changes"]] == [("added", path)]
    await desk.synced()
    mobile = "requester->'contact'->>'mobile' IN ('1', '2')"
    assert await mesh.count("tickets", mobile) == 120

    await changed(mesh, "drop", "desk", "tickets", path=["subject"])
    version = await desk.version()
    proposal = await desk.proposed()
    (change,) = proposal["changes"]
    assert (change["what"], change["path"]) == ("removed", ["subject"])
    assert await desk.version() == version
    repair = await desk.decide(proposal, "approve", "Not shown any more.")
    assert repair["state"] == "applied"
    await desk.synced()
    return desk


async def faker_is_onboarded(mesh: Mesh) -> MeshConnection:
    """Onboarded without a credential, by definition id; its second sync reads no records."""
    faker = await onboarded(
        mesh,
        source_type=str(PINNED["source-faker"].definition_id),
        connection_name="Sample data",
        configuration={"count": 200, "seed": 7},
        streams=["users"],
    )
    assert (await faker.view())["source_type"] == "Sample Data"
    assert await mesh.count("users") == 200
    return faker


async def faker_is_healed(faker: MeshConnection) -> None:
    """The newer release removes one field of `users` and adds one."""
    proposal = await faker.proposed()
    changes = {one["path"][0]: one["what"] for one in proposal["changes"]}
    assert changes["blood_type"] in ("removed", "renamed")
    await approved(faker, proposal)
    fields = await selected(faker, "users")
    assert "loyalty_points" in fields
    assert "blood_type" not in fields
    await faker.synced()
    assert await faker.mesh.count("users") == 200


async def github_is_onboarded(mesh: Mesh) -> MeshConnection:
    """The request has one part of `credentials`, the stored credential has the token."""
    hub = await onboarded(
        mesh,
        source_type="GitHub",
        connection_name="GitHub",
        credential_id="github",
        configuration={
            "repositories": [github.REPOSITORY],
            "start_date": "2026-01-01T00:00:00Z",
            "credentials": {"option_title": "PAT Credentials"},
        },
        streams=["releases", "issues"],
    )
    assert await mesh.count("releases") == github.RELEASES
    assert await mesh.count("issues") == github.ISSUES
    return hub


async def github_is_healed(hub: MeshConnection) -> None:
    """Release 2.7.1 removes two fields of `releases` and adds one."""
    proposal = await hub.proposed()
    paths = {one["path"][0] for one in proposal["changes"]}
    assert {"body_text", "discussion_url"} <= paths
    await approved(hub, proposal)
    fields = await selected(hub, "releases")
    assert "updated_at" in fields
    assert not {"body_text", "discussion_url"} & fields
    await hub.synced()
    assert await hub.mesh.count("releases") == github.RELEASES


async def selected(one: MeshConnection, stream: str) -> set[str]:
    """Return the fields of a stream that Airbyte syncs."""
    pairs = (await one.upstream())["syncCatalog"]["streams"]
    (pair,) = [found for found in pairs if found["stream"]["name"] == stream]
    if pair["config"]["fieldSelectionEnabled"]:
        return {field["fieldPath"][0] for field in pair["config"]["selectedFields"]}
    return set(pair["stream"]["jsonSchema"]["properties"])
