"""The sample org's story, as far as a repair that waits for a decision; each step by the API."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from local.demo_steps import ORDER, REGIONS
from local.mesh_client import Json, Mesh, MeshConnection, until


class Onboards(Protocol):
    """Onboards streams of the sample org, `Contact` if none is named, as a new connection."""

    def __call__(self, name: str, *streams: str) -> Awaitable[MeshConnection]: ...


async def healed(mesh: Mesh, name: str) -> MeshConnection:
    """A connection that was synced, and healed to version 2 after a field was added."""
    order = ORDER | {"connection_name": name}
    made = await mesh.ask("orchestrator", "POST", "/connections/onboard", order, expect=201)
    one = MeshConnection(mesh, made["id"])
    await one.synced()
    field = {"name": "Region__c", "type": "string", "values": REGIONS}
    await mesh.change("POST", "/Account/fields", field)
    await one.healed()
    return one


async def renamed(mesh: Mesh, name: str = "Salesforce production") -> tuple[MeshConnection, Json]:
    """A connection with syncs and a healed drift, and the repair of a renamed field.

    Onboards the org as `name`, adds a field, which is healed, and renames another one, which waits
    for a decision.
    """
    one = await healed(mesh, name)
    await one.synced()
    await mesh.change(
        "POST", "/Account/fields/NumberofLocations__c/rename", {"to": "LocationCount__c"}
    )
    await mesh.change("POST", "/Account/fields", {"name": "Tier__c", "values": ["A", "B"]})
    await one.proposed()
    return one, await settled(one)


async def proposed_rename(
    mesh: Mesh, onboard: Onboards, name: str, gone: str, became: str, *, also: str | None = None
) -> tuple[MeshConnection, Json]:
    """A new connection of Contact, and the repair about its field `gone`, which was renamed.

    `also` is another new field, which it may have become as well.
    """
    await add_field(mesh, gone)
    one = await onboard(name)
    await mesh.change("POST", f"/Contact/fields/{gone}/rename", {"to": became})
    if also is not None:
        await add_field(mesh, also)
    await one.proposed()
    return one, await settled(one)


async def settled(one: MeshConnection) -> Json:
    """The proposal of a connection, once what heals by itself beside it is applied."""

    async def found() -> Json | None:
        repairs, version = await one.repairs(), await one.version()
        states = {repair["state"] for repair in repairs}
        if states & {"approved", "applying", "verifying"}:
            return None
        proposed = (repair for repair in repairs if repair["state"] == "proposed")
        return next((repair for repair in proposed if repair["base_version"] == version), None)

    waiting = await until(found, "a proposal for the newest version", within_s=60)
    whole: Json = await one.mesh.ask("drift_repair_agent", "GET", f"/repairs/{waiting['id']}")
    return whole


async def add_field(mesh: Mesh, name: str) -> None:
    """Give Contact a new field."""
    await mesh.change("POST", "/Contact/fields", {"name": name, "values": REGIONS})
