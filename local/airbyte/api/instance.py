"""The instance and its workspaces."""

from __future__ import annotations

from typing import Any

from local.airbyte.api.backend import Backend
from local.airbyte.api.defaults import ORGANIZATION_ID, workspace
from local.airbyte.api.requests import Body
from local.airbyte.api.routes import get, post
from local.airbyte.errors import forbidden

Json = dict[str, Any]


@get("health")
async def health(_backend: Backend, _body: Body) -> Json:
    """Answer that Airbyte is available."""
    return {"available": True}


@get("instance_configuration")
async def configuration(backend: Backend, _body: Body) -> Json:
    """Describe the instance; since 2.0 with its licence. Airbyte Cloud does not describe itself."""
    if backend.release.is_cloud:
        raise forbidden()
    version, instance = backend.release.version, backend.instance
    body: Json = {
        "edition": "community",
        "version": "dev" if version == "head" else version,
        "airbyteUrl": instance.url,
        "auth": {"mode": instance.auth_mode},
        "initialSetupComplete": True,
        "defaultUserId": ORGANIZATION_ID,
        "defaultOrganizationId": ORGANIZATION_ID,
        "defaultOrganizationEmail": instance.email,
        "defaultWorkspaceId": instance.workspace_id,
        "trackingStrategy": "logging",
    }
    if backend.release.since(2):
        body["licenseStatus"] = "pro"
    return body


@post("workspaces/get")
async def get_workspace(backend: Backend, body: Body) -> Json:
    """Read a workspace."""
    return _workspace(backend, require_workspace(backend, body))


@post("workspaces/list", until=(1, 7))
async def list_workspaces(backend: Backend, _body: Body) -> Json:
    """List all workspaces."""
    return {"workspaces": _workspaces(backend)}


@post("workspaces/list_by_organization_id")
async def list_workspaces_of_organization(backend: Backend, body: Body) -> Json:
    """List the workspaces of an organization."""
    found = _workspaces(backend) if body.id("organizationId") == ORGANIZATION_ID else []
    return {"workspaces": found}


def require_workspace(backend: Backend, body: Body) -> str:
    """Return the id of the workspace that a request is about.

    Raises:
        Refusal: the instance has no such workspace.
    """
    given = body.id("workspaceId")
    if given not in backend.instance.workspaces:
        raise backend.unknown("STANDARD_WORKSPACE", given)
    return given


def _workspaces(backend: Backend) -> list[Json]:
    return [_workspace(backend, workspace_id) for workspace_id in backend.instance.workspaces]


def _workspace(backend: Backend, workspace_id: str) -> Json:
    instance = backend.instance
    name = instance.workspaces[workspace_id]
    return {
        "workspaceId": workspace_id,
        "customerId": ORGANIZATION_ID,
        "organizationId": ORGANIZATION_ID,
        "name": name,
        "slug": name.lower().replace(" ", "-"),
        "email": instance.email,
        **workspace(backend.release),
    }
