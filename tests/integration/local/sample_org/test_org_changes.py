"""The sample org can be changed while it runs, keeps its state, and serves Salesforce's hosts."""

from __future__ import annotations

import asyncio
import json
import ssl
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.sample_org.fields import CUSTOM_TYPES
from local.sample_org.org import Org
from local.sample_org.server import Running, running
from tests.integration.local.org_client import (
    DATA,
    FORM,
    JSON,
    change,
    client_of,
    code,
    fields,
    newer,
    query,
    settings,
    start_job,
)


class TestChanges:
    """The org's own API."""

    async def test_new_field_has_values_and_touches_the_rows(self, api: httpx.AsyncClient) -> None:
        """Only rows that got a value count as modified."""
        before = (await query(api, "SELECT SystemModstamp FROM Account"))["records"]
        newest = max(row["SystemModstamp"] for row in before)

        result = await change(
            api, "POST", "/org/objects/Account/fields", name="Region__c", values=["EMEA", None]
        )

        assert result == "Account has a new field Region__c (string); 100 rows got a value."
        assert (await fields(api, "Account"))["Region__c"]["type"] == "string"
        rows = await newer(api, "Account", "Region__c", newest)
        assert [row["Region__c"] for row in rows] == ["EMEA"] * 100

    @pytest.mark.parametrize(
        "kind",
        CUSTOM_TYPES,
    )
    async def test_field_of_every_type_can_be_added(
        self, api: httpx.AsyncClient, kind: str
    ) -> None:
        """With values in all rows, readable by both APIs."""
        await change(api, "POST", "/org/objects/Case/fields", name="New__c", type=kind)

        page = await query(api, "SELECT New__c FROM Case LIMIT 10")
        assert len(page["records"]) == 10
        assert all(row["New__c"] is not None for row in page["records"])
        job = (await start_job(api, "SELECT New__c FROM Case")).json()
        answer = await api.get(f"{DATA}/jobs/query/{job['id']}/results")
        assert answer.headers["Sforce-NumberOfRecords"] == "250"

    async def test_dropped_field_is_gone(self, api: httpx.AsyncClient) -> None:
        """From the describe, and from queries."""
        result = await change(api, "DELETE", "/org/objects/Account/fields/SLA__c")

        assert result == "Account no longer has the field SLA__c."
        assert "SLA__c" not in await fields(api, "Account")
        answer = await api.get(f"{DATA}/query", params={"q": "SELECT SLA__c FROM Account"})
        assert code(answer) == (400, "INVALID_FIELD")

    async def test_standard_field_can_be_hidden_and_shown(self, api: httpx.AsyncClient) -> None:
        """Salesforce cannot delete it, but can take the right to read it."""
        before = (await query(api, "SELECT Fax FROM Account"))["records"]
        await change(api, "DELETE", "/org/objects/Account/fields/Fax")
        assert "Fax" not in await fields(api, "Account")

        await change(api, "POST", "/org/objects/Account/fields", name="Fax")

        assert (await query(api, "SELECT Fax FROM Account"))["records"] == before

    async def test_renamed_field_keeps_place_and_values(self, api: httpx.AsyncClient) -> None:
        """And no row counts as modified."""
        before = (await query(api, "SELECT SLA__c, SystemModstamp FROM Account"))["records"]
        place = list(await fields(api, "Account")).index("SLA__c")

        await change(api, "POST", "/org/objects/Account/fields/SLA__c/rename", to="Tier__c")

        described = await fields(api, "Account")
        assert list(described).index("Tier__c") == place
        assert "SLA__c" not in described
        after = (await query(api, "SELECT Tier__c, SystemModstamp FROM Account"))["records"]
        assert [(r["Tier__c"], r["SystemModstamp"]) for r in after] == [
            (r["SLA__c"], r["SystemModstamp"]) for r in before
        ]

    async def test_retyped_field_converts_its_values(self, api: httpx.AsyncClient) -> None:
        """Numbers become texts; texts that are no numbers become empty."""
        path = "/org/objects/Account/fields/NumberofLocations__c/retype"
        await change(api, "POST", path, type="string")
        page = await query(api, "SELECT NumberofLocations__c FROM Account LIMIT 3")
        assert len(page["records"]) == 3
        assert all(isinstance(row["NumberofLocations__c"], str) for row in page["records"])

        await change(api, "POST", "/org/objects/Account/fields/SLA__c/retype", type="double")

        assert (await fields(api, "Account"))["SLA__c"]["type"] == "double"
        page = await query(api, "SELECT SLA__c FROM Account WHERE SLA__c != null")
        assert page["totalSize"] == 0

    async def test_forbidden_field_is_described_but_not_readable(
        self, api: httpx.AsyncClient
    ) -> None:
        """In both query APIs, whatever it is renamed or retyped to, until it is allowed again."""
        path = "/org/objects/Account/fields/NumberofLocations__c"
        await change(api, "POST", f"{path}/forbid")
        await change(api, "POST", f"{path}/retype", type="string")
        await change(api, "POST", f"{path}/rename", to="Sites__c")
        assert (await fields(api, "Account"))["Sites__c"]["type"] == "string"

        text = "SELECT Sites__c FROM Account"
        found = await api.get(f"{DATA}/query", params={"q": text})
        assert code(found) == code(await start_job(api, text)) == (400, "INVALID_FIELD")

        await change(api, "POST", "/org/objects/Account/fields/Sites__c/allow")
        assert (await query(api, text))["totalSize"] == 200

    async def test_timestamp_fields_can_be_hidden_and_shown(self, api: httpx.AsyncClient) -> None:
        times = ("SystemModstamp", "LastModifiedDate", "CreatedDate")
        for name in times:
            await change(api, "DELETE", f"/org/objects/Case/fields/{name}")
        assert set(await fields(api, "Case")).isdisjoint(times)
        for name in times:
            await change(api, "POST", "/org/objects/Case/fields", name=name)
        text = f"SELECT {', '.join(times)} FROM Case"  # noqa: S608 -- SOQL of the test's own
        assert (await query(api, text))["totalSize"] == 250

    async def test_objects_can_be_added_hidden_and_shown(self, api: httpx.AsyncClient) -> None:
        """A hidden object answers like a missing one."""
        await change(api, "POST", "/org/objects", name="Invoice__c", rows=4)
        assert (await query(api, "SELECT Id, Name, OwnerId FROM Invoice__c"))["totalSize"] == 4

        await change(api, "POST", "/org/objects/Invoice__c/hide")
        listed = (await api.get(f"{DATA}/sobjects")).json()["sobjects"]
        assert "Invoice__c" not in {entry["name"] for entry in listed}
        described = await api.get(f"{DATA}/sobjects/Invoice__c/describe")
        assert code(described) == (404, "NOT_FOUND")
        found = await api.get(f"{DATA}/query", params={"q": "SELECT Id FROM Invoice__c"})
        assert code(found) == (400, "INVALID_TYPE")

        await change(api, "POST", "/org/objects/Invoice__c/show")
        assert (await query(api, "SELECT Id FROM Invoice__c"))["totalSize"] == 4

    async def test_touched_rows_are_the_newest(self, api: httpx.AsyncClient) -> None:
        """Two touches have two times, so that a cursor can stand between them."""
        await change(api, "POST", "/org/objects/Lead/touch", count=3)
        first = (await query(api, "SELECT SystemModstamp FROM Lead LIMIT 1"))["records"][0]
        result = await change(api, "POST", "/org/objects/Lead/touch")

        assert result == "1 rows of Lead have a new SystemModstamp."
        assert len(await newer(api, "Lead", "Id", first["SystemModstamp"])) == 1

    @pytest.mark.parametrize(
        "method, path, body, status",
        [
            ("POST", "Account/fields", {}, 422),
            ("POST", "Account/fields", {"name": "Region"}, 422),
            ("POST", "Account/fields", {"name": "A__b__c"}, 422),
            ("POST", "Account/fields", {"name": "x" * 60 + "__c"}, 422),
            ("POST", "Account/fields", {"name": "Region__c", "type": "blob"}, 422),
            ("POST", "Account/fields", {"name": "Region__c", "colour": "red"}, 422),
            ("POST", "Account/fields", {"name": "Region__c", "verb": "touch"}, 422),
            ("POST", "Account/fields", {"name": "Region__c", "values": [1]}, 422),
            ("POST", "Account/fields", {"name": "N__c", "type": "int", "values": [True]}, 422),
            ("POST", "Account/fields", {"name": "D__c", "type": "date", "values": ["x"]}, 422),
            ("POST", "Account/fields", {"name": "N__c", "type": "int", "values": [10**20]}, 422),
            ("POST", "Account/fields", {"name": "L__c", "length": 2, "values": ["abc"]}, 422),
            ("POST", "Account/fields", {"name": "SLA__c"}, 409),
            ("POST", "Nothing__c/fields", {"name": "Region__c"}, 404),
            (
                "POST",
                "Case/fields",
                {"name": "R__c", "type": "reference", "reference_to": "X"},
                404,
            ),
            ("DELETE", "Account/fields/Id", None, 422),
            ("DELETE", "Account/fields/IsDeleted", None, 422),
            ("POST", "Account/fields/Nothing__c/forbid", None, 404),
            ("POST", "Account/fields/Name/allow", None, 409),
            ("DELETE", "Account/fields/Nothing__c", None, 404),
            ("POST", "Account/fields/Name/rename", {"to": "Title__c"}, 422),
            ("POST", "Account/fields/SLA__c/rename", {"to": "Active__c"}, 409),
            ("POST", "Account/fields/SLA__c/rename", {"to": "Tier"}, 422),
            ("POST", "Account/fields/SLA__c/rename", {}, 422),
            ("POST", "Account/fields/Name/retype", {"type": "int"}, 422),
            ("POST", "Account/fields/SLA__c/retype", {"type": "picklist"}, 409),
            ("POST", "Account/show", None, 409),
            ("POST", "Nothing__c/hide", None, 404),
            ("POST", "Account/touch", {"count": 0}, 422),
            ("POST", "Account/touch", {"count": "many"}, 422),
            ("POST", "../objects", {"name": "Account"}, 409),
            ("POST", "../objects", {"name": "Invoice"}, 422),
        ],
    )
    async def test_invalid_command_changes_nothing(
        self,
        plain: httpx.AsyncClient,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        status: int,
    ) -> None:
        """The answer is a problem with a sentence, and the org is as it was."""
        before = (await plain.get("/org/objects/Account")).json()

        answer = await plain.request(method, f"/org/objects/{path}", json=body)

        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"].endswith(".")
        assert (await plain.get("/org/objects/Account")).json() == before
        assert (await plain.get("/org")).json()["changes"] == []

    async def test_invalid_json_is_refused(self, plain: httpx.AsyncClient) -> None:
        """So is a list where members are expected, and half a character."""
        for content in (b"{", b"[]", b'"x"', b'{"name": "U__c", "values": ["\\ud800"]}'):
            answer = await plain.post("/org/objects/Account/fields", content=content, headers=JSON)
            assert answer.status_code == 422
            assert answer.json()["code"] == "invalid_request"


class TestBehaviour:
    """PATCH /org/settings."""

    async def test_every_api_call_has_the_latency(self, api: httpx.AsyncClient) -> None:
        """Calls of Salesforce's API, not the org's own."""
        await api.patch("/org/settings", json={"latency_ms": 150})

        began = time.monotonic()
        await api.get(f"{DATA}/sobjects")
        slow = time.monotonic() - began

        assert slow >= 0.15

    async def test_endpoint_fails_the_given_number_of_times(self, api: httpx.AsyncClient) -> None:
        """With Salesforce's code for the status, and the others go on."""
        failures = [{"endpoint": "describe", "status": 503, "times": 2}]
        await api.patch("/org/settings", json={"failures": failures})

        seen = [await api.get(f"{DATA}/sobjects/Case/describe") for _ in range(3)]

        assert [answer.status_code for answer in seen] == [503, 503, 200]
        assert code(seen[0]) == (503, "SERVER_UNAVAILABLE")
        assert (await api.get(f"{DATA}/sobjects")).status_code == 200
        assert (await api.get("/org")).json()["behaviour"]["failures"] == []

    async def test_failure_without_a_number_is_permanent(self, api: httpx.AsyncClient) -> None:
        await api.patch("/org/settings", json={"failures": [{"endpoint": "query", "status": 403}]})
        for _ in range(3):
            answer = await api.get(f"{DATA}/query", params={"q": "SELECT Id FROM Case"})
            assert code(answer) == (403, "REQUEST_LIMIT_EXCEEDED")

        await api.patch("/org/settings", json={"failures": []})

        assert (await query(api, "SELECT Id FROM Case"))["totalSize"] == 250

    @pytest.mark.parametrize(
        "wrong",
        [
            {"latency_ms": -1},
            {"latency_ms": "soon"},
            {"latency_ms": True},
            {"page_size": 0},
            {"colour": "red"},
            {"failures": [{"endpoint": "nothing", "status": 500}]},
            {"failures": [{"endpoint": "query", "status": 200}]},
            {"failures": [{"endpoint": "query", "status": 500, "times": 0}]},
        ],
    )
    async def test_invalid_settings_change_nothing(
        self, plain: httpx.AsyncClient, wrong: dict[str, Any]
    ) -> None:
        """Not even the right ones beside them."""
        before = (await plain.get("/org")).json()["behaviour"]

        answer = await plain.patch("/org/settings", json={"bulk_page_size": 7} | wrong)

        assert answer.status_code == 422
        assert (await plain.get("/org")).json()["behaviour"] == before

    async def test_reset_forgets_everything(self, api: httpx.AsyncClient) -> None:
        """Changes, behaviour, rotated tokens, sessions."""
        await api.patch("/org/settings", json={"rotate_refresh_token": True, "page_size": 9})
        await api.post("/services/oauth2/token", data=FORM)
        await change(api, "DELETE", "/org/objects/Account/fields/SLA__c")

        await change(api, "POST", "/org/reset")

        shown = (await api.get("/org")).json()
        assert (shown["changes"], shown["calls"]) == ([], {})
        assert shown["behaviour"]["page_size"] == 2000
        assert code(await api.get(f"{DATA}/sobjects")) == (401, "INVALID_SESSION_ID")
        assert (await api.post("/services/oauth2/token", data=FORM)).status_code == 200


async def test_changes_survive_a_restart(tmp_path: Path) -> None:
    """Rows, fields, behaviour and the rotated token are what they were."""
    async with (
        running(settings(tmp_path)) as org,
        client_of(org) as client,
    ):
        await change(client, "POST", "/org/objects/Account/fields", name="A__c", type="currency")
        await change(client, "POST", "/org/objects/Account/fields/A__c/rename", to="B__c")
        await change(client, "POST", "/org/objects", name="Invoice__c")
        await change(client, "POST", "/org/objects/Lead/hide")
        await client.patch("/org/settings", json={"rotate_refresh_token": True})
        token = (await client.post("/services/oauth2/token", data=FORM)).json()["refresh_token"]
        before = (await client.get("/org")).json()
        rows = org.live.org.rows(org.live.org.find("Account"))  # type: ignore[arg-type]
        certificate = org.ca_bundle.read_bytes()

    async with (
        running(settings(tmp_path)) as org,
        client_of(org) as client,
    ):
        after = (await client.get("/org")).json()
        assert after["objects"] == before["objects"]
        assert after["changes"] == before["changes"]
        assert org.live.org.rows(org.live.org.find("Account")) == rows  # type: ignore[arg-type]
        assert org.ca_bundle.read_bytes() == certificate
        form = FORM | {"refresh_token": token}
        assert (await client.post("/services/oauth2/token", data=form)).status_code == 200


async def test_state_is_readable_by_its_owner_only(org: Running) -> None:
    """It holds a private key and a refresh token."""
    for name in ("org.json", "ca.key", "auth"):
        mode = stat.S_IMODE((org.ca_bundle.parent / name).stat().st_mode)
        assert mode == 0o600


async def test_generated_rows_are_deterministic(tmp_path: Path) -> None:
    """On the same day, on any machine."""
    async with running(settings(tmp_path / "a")) as a, running(settings(tmp_path / "b")) as b:
        for sobject in a.live.org.stored():
            twin = b.live.org.find(sobject.name)
            assert twin is not None
            assert a.live.org.rows(sobject) == b.live.org.rows(twin)


async def test_large_org_has_generated_objects(tmp_path: Path) -> None:
    """They are listed, described, read and changed like the others."""
    async with (
        running(settings(tmp_path, objects=1500, fields=300)) as org,
        client_of(org) as client,
    ):
        login = (await client.post("/services/oauth2/token", data=FORM)).json()
        client.headers["Authorization"] = f"Bearer {login['access_token']}"
        listed = (await client.get(f"{DATA}/sobjects")).json()["sobjects"]
        assert len(listed) == 1512
        assert len(await fields(client, "Custom_1500__c")) == 300
        assert len((await query(client, "SELECT Id FROM Custom_0007__c"))["records"]) == 3
        missing = await client.get(f"{DATA}/sobjects/Custom_1501__c/describe")
        assert code(missing) == (404, "NOT_FOUND")

        await change(client, "POST", "/org/objects/Custom_0007__c/fields", name="New__c")

        assert "New__c" in await fields(client, "Custom_0007__c")
        assert "New__c" not in await fields(client, "Custom_0008__c")


class TestProxy:
    """The way in for an unchanged connector."""

    async def test_salesforce_hosts_are_served_by_the_org(self, org: Running) -> None:
        """Login, test and instance hosts, with a certificate of the org's own authority."""
        trusted = ssl.create_default_context(cafile=str(org.ca_bundle))
        async with httpx.AsyncClient(proxy=org.proxy_url, verify=trusted) as client:
            for host in ("login", "test", "sample-org.my", "other--dev.sandbox.my"):
                url = f"https://{host}.salesforce.com/services/oauth2/token"
                answer = await client.post(url, data=FORM)
                assert answer.status_code == 200

    async def test_concurrent_clients(self, org: Running) -> None:
        """The connector uses several threads."""
        trusted = ssl.create_default_context(cafile=str(org.ca_bundle))
        async with httpx.AsyncClient(proxy=org.proxy_url, verify=trusted) as client:
            url = "https://login.salesforce.com/services/oauth2/token"
            answers = await asyncio.gather(*(client.post(url, data=FORM) for _ in range(24)))

        assert {answer.status_code for answer in answers} == {200}

    async def test_client_without_the_ca_bundle_refuses_the_org(self, org: Running) -> None:
        async with httpx.AsyncClient(proxy=org.proxy_url) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("https://login.salesforce.com/")

    @pytest.mark.parametrize(
        "request_line, status",
        [
            ("CONNECT example.com:443", 403),
            ("CONNECT salesforce.com.example.com:443", 403),
            ("CONNECT notsalesforce.com:443", 403),
            ("CONNECT login.salesforce.com:22", 403),
            ("CONNECT nonsense", 403),
            ("GET http://example.com/", 405),
        ],
    )
    async def test_proxy_reaches_no_other_host(
        self, org: Running, request_line: str, status: int
    ) -> None:
        host, port = org.proxy_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"{request_line} HTTP/1.1\r\n\r\n".encode())

        async with asyncio.timeout(60):
            answer = await reader.read()
        writer.close()
        await writer.wait_closed()

        assert answer.startswith(f"HTTP/1.1 {status} ".encode())


async def test_health_and_overview(plain: httpx.AsyncClient) -> None:
    assert (await plain.get("/health")).json() == {"status": "ok"}
    shown = (await plain.get("/org")).json()
    assert shown["objects"]["Account"] == {
        "custom": False,
        "hidden": False,
        "rows": 200,
        "fields": 64,
    }
    assert json.dumps(shown).count("the-secret") == 0
    assert (await plain.get("/org/objects/Nothing__c")).status_code == 404


def test_larger_org_repeats_values_with_unique_ids() -> None:
    """Cheap enough for tens of thousands; the number of users stays the same."""
    org = Org(born=datetime(2026, 1, 1, tzinfo=UTC), row_factor=3)
    account, user = org.find("Account"), org.find("User")
    assert account is not None
    assert user is not None

    rows = org.rows(account)

    assert (len(rows), len({row["Id"] for row in rows}), len(org.rows(user))) == (600, 600, 12)
    assert rows[200] == rows[0] | {"Id": rows[200]["Id"]}
