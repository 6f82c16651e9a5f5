"""Helpers to create an auth_broker for one test, and to call it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
from fastapi import FastAPI

from local.processes import servers
from services.auth_broker import main as auth_broker
from services.auth_broker.settings import BrokerSettings
from services.auth_broker.stores import EnvironmentStore
from services.auth_broker.vault import VaultStore
from shared.auth.scopes import Scope
from shared.auth.service_tokens import Signer
from tests import access, leaks
from tests.given_settings import given
from tests.pools import Sql


def token(
    credential_id: str | None = "salesforce-prod",
    *,
    audience: str = "auth_broker",
    scope: str = Scope.CREDENTIALS_READ,
    service: str = "orchestrator",
) -> str:
    """Create a token as a service does for each call."""
    key = access.service_keys()["service_private_key_dir"] / f"{service}.pem"
    return Signer(service, key).token(audience, scope, credential_id=credential_id)


async def ask(
    app: FastAPI,
    credential_id: str = "salesforce-prod",
    *,
    of: str = "connector-config",
    more: str = "",
    bearer: str = "",
) -> httpx.Response:
    """Request a credential, by default as the orchestrator with a token for this credential."""
    transport = httpx.ASGITransport(app)
    headers = {"Authorization": f"Bearer {bearer or token(credential_id)}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://aam") as client:
        return await client.get(f"/credentials/{credential_id}/{of}{more}", headers=headers)


async def audited(sql: Sql) -> list[tuple[str, str, str]]:
    """Return caller, credential and result of each audit entry, oldest first."""
    rows = await sql.fetch("SELECT caller, credential_id, result FROM credential_audit ORDER BY id")
    return [tuple(row) for row in rows]


CANARY = leaks.canary("Salesforce's client secret")
CREDENTIALS = {
    "CREDENTIAL_SALESFORCE_PROD__CLIENT_ID": leaks.canary("Salesforce's client id"),
    "CREDENTIAL_SALESFORCE_PROD__CLIENT_SECRET": CANARY,
    "CREDENTIAL_SALESFORCE_PROD__REFRESH_TOKEN": leaks.canary("Salesforce's refresh token"),
}

_made: list[FastAPI] = []


@contextmanager
def made_here() -> Iterator[list[FastAPI]]:
    """Collect the applications that `broker_for` creates in the block."""
    _made.clear()
    yield _made
    _made.clear()


async def close(app: FastAPI) -> None:
    """Close a broker's connections to the registry and to its stores."""
    await app.state.db.close()
    for store in app.state.service._stores.values():
        if isinstance(store, VaultStore):
            store.close()


def broker_for(
    registry_url: str, credentials: Mapping[str, str] = CREDENTIALS, **more: Any
) -> FastAPI:
    """Create an auth_broker with these environment variables."""
    values = {
        "supabase_db_url": servers.as_service(registry_url, "auth_broker"),
        "log_level": "DEBUG",
        **access.service_keys(),
        **more,
    }
    app = auth_broker.build(given(BrokerSettings, **values), EnvironmentStore(credentials))
    _made.append(app)
    return app
