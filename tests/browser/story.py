"""The sample org's story, as far as a repair that waits for a decision; each step by the API."""

from __future__ import annotations

from local.demo_steps import ORDER, REGIONS
from local.mesh_client import Json, Mesh, MeshConnection


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
    return one, await one.proposed()
