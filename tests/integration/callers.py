"""Helpers for callers with other scopes, and for the history of what they change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from shared.auth.scopes import KEY_SCOPES, Scope
from tests import access
from tests.integration.conftest import Mesh

Json = dict[str, Any]
ALL_BUT_DECIDE = [scope for scope in KEY_SCOPES if scope is not Scope.REPAIRS_DECIDE]


@asynccontextmanager
async def caller(
    mesh: Mesh, of: httpx.AsyncClient, *scopes: Scope, owner: str = "tests"
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the same service by another key; its header `x-name` says what it is called."""
    key = await access.insert(mesh.sql, *scopes, owner=owner)
    transport = of._transport
    headers = {"Authorization": f"Bearer {key.key}", "x-name": f"{owner} (key {key.id})"}
    client = httpx.AsyncClient(transport=transport, base_url=of.base_url, headers=headers)
    yield client  # the transport is closed by whoever made it


async def history(mesh: Mesh, path: str, **query: Any) -> Json:
    """A page of changes."""
    at = mesh.schema_observer if path.endswith("observation") else mesh.drift_repair_agent
    answer = await at.get(f"{path}/history", params=query)
    assert answer.status_code == 200, answer.text
    page: Json = answer.json()
    return page
