"""The instance and its workspace."""

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
    """Read the workspace."""
    require_workspace(backend, body)
    return _workspace(backend)


@post("workspaces/list", until=(1, 7))
async def list_workspaces(backend: Backend, _body: Body) -> Json:
    """List the workspace."""
    return {"workspaces": [_workspace(backend)]}


@post("workspaces/list_by_organization_id")
async def list_workspaces_of_organization(backend: Backend, body: Body) -> Json:
    """List the workspace of an organization."""
    found = [_workspace(backend)] if body.id("organizationId") == ORGANIZATION_ID else []
    return {"workspaces": found}


def require_workspace(backend: Backend, body: Body) -> None:
    """Refuse a request for another workspace."""
    given = body.id("workspaceId")
    if given != backend.instance.workspace_id:
        raise backend.unknown("STANDARD_WORKSPACE", given)


def _workspace(backend: Backend) -> Json:
    instance = backend.instance
    return {
        "workspaceId": instance.workspace_id,
        "customerId": ORGANIZATION_ID,
        "organizationId": ORGANIZATION_ID,
        "name": instance.workspace_name,
        "slug": instance.workspace_name.lower().replace(" ", "-"),
        "email": instance.email,
        **workspace(backend.release),
    }
