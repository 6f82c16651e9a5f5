"""The auth_broker says whether credentials changed and when they expire, without their values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests import leaks
from tests.integration.brokers import audited, broker_for, token
from tests.pools import Sql

SECRET = leaks.canary("a secret whose version is requested")
OTHER = leaks.canary("another secret whose version is requested")
KEY = "ab" * 32
PREFIX = "CREDENTIAL_SALESFORCE_PROD__"


async def versions(app: FastAPI, *ids: str, key: str = KEY) -> list[dict[str, Any]]:
    """The answer for these credentials, which has no value."""
    transport = httpx.ASGITransport(app)
    headers = {"Authorization": f"Bearer {token(None)}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://aam") as client:
        answer = await client.post(
            "/credentials/versions",
            headers=headers,
            json={"credential_ids": ids, "digest_key": key},
        )
    assert answer.status_code == 200, answer.text
    assert SECRET not in answer.text
    found: list[dict[str, Any]] = answer.json()["credentials"]
    return found


async def test_version_changes_with_any_value(sql: Sql, registry_url: str) -> None:
    """A digest under the request's key: the same for the same values, in whatever order."""
    store = {f"{PREFIX}CLIENT_SECRET": SECRET, f"{PREFIX}CLIENT_ID": "id"}
    first, again = [
        (await versions(broker_for(registry_url, one), "salesforce-prod"))[0]["version"]
        for one in (store, dict(reversed(store.items())))
    ]
    changed = broker_for(registry_url, store | {f"{PREFIX}CLIENT_SECRET": OTHER})
    other_key = broker_for(registry_url, store)

    assert first == again
    assert (await versions(changed, "salesforce-prod"))[0]["version"] != first
    assert (await versions(other_key, "salesforce-prod", key="cd" * 32))[0]["version"] != first
    assert await audited(sql) == []


async def test_token_of_one_credential_is_refused(sql: Sql, registry_url: str) -> None:
    """It is for one read; an intercepted one must not show versions, and stays usable."""
    app = broker_for(registry_url, {f"{PREFIX}CLIENT_SECRET": SECRET})
    transport = httpx.ASGITransport(app)
    headers = {"Authorization": f"Bearer {token('salesforce-prod')}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://aam") as client:
        answers = [
            await client.post(
                "/credentials/versions",
                headers=headers,
                json={"credential_ids": ["salesforce-prod"], "digest_key": KEY},
            )
            for _ in range(2)
        ]
        read = await client.get(
            "/credentials/salesforce-prod/document", headers=headers, params={"source_type": "x"}
        )

    assert [one.status_code for one in answers] == [403, 403]
    assert {one.json()["code"] for one in answers} == {"wrong_credential"}
    assert read.status_code == 200


async def test_unreadable_credential_does_not_affect_the_others(
    sql: Sql, registry_url: str, tmp_path: Path
) -> None:
    """Each has its own code, and a store that is away is no other store's concern."""
    folder = tmp_path / "credentials"
    (folder / "good").mkdir(parents=True)
    (folder / "good" / "api_key").write_text(SECRET)
    (folder / "bad").mkdir()
    (folder / "bad" / "config.json").write_text("[]")
    store = {f"{PREFIX}CLIENT_SECRET": SECRET}
    app = broker_for(registry_url, store, credentials_dir=folder)
    ids = ("file:bad", "file:good", "vault:x", "absent", "salesforce-prod")

    found = await versions(app, *ids)

    assert [one["credential_id"] for one in found] == list(ids)
    assert [one["code"] for one in found] == [
        "credential_invalid",
        None,
        "store_not_configured",
        "credential_not_found",
        None,
    ]
    assert [one["version"] is not None for one in found] == [False, True, False, False, True]
    folder.rename(tmp_path / "away")
    found = await versions(app, *ids)
    assert [one["code"] for one in found[:2]] == ["store_unavailable", "store_unavailable"]
    assert found[-1]["version"] is not None


@pytest.mark.parametrize(
    "written, shown",
    [
        ("2027-01-31", "2027-01-31T00:00:00Z"),
        ("2027-01-31T12:00:00+02:00", "2027-01-31T12:00:00+02:00"),
        ("soon", None),
    ],
)
async def test_expiry_beside_the_values(
    sql: Sql, registry_url: str, written: str, shown: str | None
) -> None:
    """`expires_at` is a date or a time; anything else is no expiry."""
    store = {f"{PREFIX}CLIENT_SECRET": SECRET, f"{PREFIX}EXPIRES_AT": written}

    (found,) = await versions(broker_for(registry_url, store), "salesforce-prod")

    assert found["expires_at"] == shown
