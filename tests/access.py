"""Credentials of the tests: an API key with every scope, and the services' signing keys."""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from shared.auth.api_keys import NewKey, new_key
from shared.auth.scopes import KEY_SCOPES, SERVICE_CALLS, Caller, Scope
from shared.auth.service_tokens import Signer, make_pair
from tests import leaks

KEY = new_key("test")
"""Generated for this run; `let_in` inserts it into a registry."""
NAME = f"tests (key {KEY.id})"
HEADERS = {"Authorization": f"Bearer {KEY.key}"}
leaks.know("the caller's key", KEY.key.partition(f"_{KEY.id}_")[2])


async def let_in_now(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Insert the key into a registry."""
    await connection.execute(
        "INSERT INTO api_keys (id, digest, scopes, owner, created_by)"
        " VALUES ($1, $2, $3, 'tests', 'tests') ON CONFLICT DO NOTHING",
        KEY.id,
        KEY.digest,
        [*KEY_SCOPES],
    )


async def insert(
    connection: asyncpg.Connection[asyncpg.Record],
    *scopes: Scope,
    owner: str = "tests",
    labels: str = "{}",
) -> NewKey:
    """Insert another key with exactly these scopes and, as JSON, labels; return it."""
    key = new_key("test")
    leaks.know("another caller's key", key.key.partition(f"_{key.id}_")[2])
    await connection.execute(
        "INSERT INTO api_keys (id, digest, scopes, owner, created_by, labels)"
        " VALUES ($1, $2, $3, $4, 'tests', $5::jsonb)",
        key.id,
        key.digest,
        [*scopes],
        owner,
        labels,
    )
    return key


def let_in(url: str) -> None:
    """Insert the key into the registry at this URL, from synchronous code."""

    async def insert() -> None:
        connection = await asyncpg.connect(url)
        try:
            await let_in_now(connection)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as other:  # this thread may already run an event loop
        other.submit(asyncio.run, insert()).result()


@cache
def service_keys() -> dict[str, Any]:
    """Create the services' key pairs; return the settings for them, with very high rate limits."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for service in {caller for caller, _ in SERVICE_CALLS}:
        private = folder / "private" / f"{service}.pem"
        make_pair(service, private, folder / "public")
        pem = private.read_text().splitlines()[1]
        leaks.know(f"the {service}'s signing key", pem[-43:])
        token = Signer(service, private).token("nobody", "nothing")
        leaks.know(f"a token of the {service}", token.partition(".")[0])
    return {
        "service_private_key_dir": folder / "private",
        "service_public_keys_dir": folder / "public",
        "requests_per_second": 1_000_000,
        "failed_keys_per_minute": 60_000_000,
    }


def signer(service: str) -> Signer:
    """Return the signer of a service's tokens."""
    return Signer(service, service_keys()["service_private_key_dir"] / f"{service}.pem")


def environment() -> dict[str, str]:
    """Return the settings of `service_keys` as environment variables."""
    return {name.upper(): str(path) for name, path in service_keys().items()}


def client(url: str = "http://aam", **options: Any) -> httpx.AsyncClient:
    """Build an HTTP client that sends the key."""
    hooks = {"response": [leaks.add_answer]}
    return httpx.AsyncClient(base_url=url, headers=HEADERS, event_hooks=hooks, **options)


class Everybody:
    """Accepts the tests' key without a registry, for applications that have none."""

    async def caller(self, presented: str) -> Caller | None:
        """Return the tests' caller for their key, None for any other."""
        scopes = frozenset(KEY_SCOPES)
        return Caller(f"key:{KEY.id}", NAME, scopes) if presented == KEY.key else None
