"""The sample org answers as Salesforce does, and can be changed while it runs."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import ssl
import stat
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.sample_org.fields import CUSTOM_TYPES
from local.sample_org.org import Org
from local.sample_org.server import Running, running
from local.sample_org.settings import Settings
from tests.integration.local.org_client import client_of

FORM = {
    "grant_type": "refresh_token",
    "client_id": "the-client",
    "client_secret": "the-secret",
    "refresh_token": "the-refresh-token",
}
DATA = "/services/data/v62.0"
JSON = {"Content-Type": "application/json"}


def settings(state_dir: Path, **more: int) -> Settings:
    """Free ports, and credentials of the test's own."""
    return Settings.model_validate(
        {"port": 0, "proxy_port": 0, "state_dir": state_dir, **more}
        | {key: FORM[key] for key in ("client_id", "client_secret", "refresh_token")}
    )


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One server on free ports."""
    async with running(settings(tmp_path_factory.mktemp("sample-org"))) as started:
        yield started


@pytest.fixture
def org(server: Running) -> Running:
    """An org as it was born."""
    server.live.reset()
    return server


@pytest.fixture
async def plain(org: Running) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody without an access token."""
    async with client_of(org) as client:
        yield client


@pytest.fixture
async def api(plain: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client that has logged in."""
    token = (await plain.post("/services/oauth2/token", data=FORM)).json()["access_token"]
    plain.headers["Authorization"] = f"Bearer {token}"
    return plain


async def fields(api: httpx.AsyncClient, sobject: str) -> dict[str, dict[str, Any]]:
    """The described fields of an object, by name."""
    answer = await api.get(f"{DATA}/sobjects/{sobject}/describe")
    assert answer.status_code == 200
    return {field["name"]: field for field in answer.json()["fields"]}


async def query(api: httpx.AsyncClient, text: str, **params: str) -> dict[str, Any]:
    """The first page of a query."""
    answer = await api.get(f"{DATA}/queryAll", params={"q": text, **params})
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


async def newer(
    api: httpx.AsyncClient, sobject: str, field: str, moment: str
) -> list[dict[str, Any]]:
    """Rows modified after a moment."""
    page = await query(api, f"SELECT {field} FROM {sobject} WHERE SystemModstamp > {moment}")  # noqa: S608 -- SOQL of the test's own
    records: list[dict[str, Any]] = page["records"]
    return records


async def start_job(api: httpx.AsyncClient, text: str) -> httpx.Response:
    """Create a bulk query job."""
    return await api.post(f"{DATA}/jobs/query", json={"operation": "queryAll", "query": text})


async def change(client: httpx.AsyncClient, method: str, path: str, **body: Any) -> str:
    """Make a change that has to work, and give back its sentence."""
    answer = await client.request(method, path, json=body or None)
    assert answer.is_success, answer.text
    return str(answer.json()["changed"])


def code(answer: httpx.Response) -> tuple[int, str]:
    """A refusal's status and Salesforce's code."""
    return answer.status_code, answer.json()[0]["errorCode"]


class TestToken:
    """POST /services/oauth2/token."""

    async def test_valid_credentials_open_a_session(self, plain: httpx.AsyncClient) -> None:
        """The reply sends the client on to an instance that the proxy serves too."""
        answer = await plain.post("/services/oauth2/token", data=FORM)

        assert answer.json()["instance_url"] == "https://sample-org.my.salesforce.com"
        assert "refresh_token" not in answer.json()

    @pytest.mark.parametrize(
        "wrong, error, description",
        [
            ("grant_type", "unsupported_grant_type", "grant type not supported"),
            ("client_id", "invalid_client_id", "client identifier invalid"),
            ("client_secret", "invalid_client", "invalid client credentials"),
            ("refresh_token", "invalid_grant", "expired access/refresh token"),
        ],
    )
    async def test_each_wrong_credential_is_named(
        self, plain: httpx.AsyncClient, wrong: str, error: str, description: str
    ) -> None:
        """With the words that the connector looks for, and without what was sent."""
        answer = await plain.post("/services/oauth2/token", data=FORM | {wrong: "nonsense-é"})

        assert answer.status_code == 400
        assert answer.json() == {"error": error, "error_description": description}

    async def test_rotation_invalidates_the_old_token(self, plain: httpx.AsyncClient) -> None:
        """Each token is good once, and the newest one stays good when rotation ends."""
        await plain.patch("/org/settings", json={"rotate_refresh_token": True})

        newest = (await plain.post("/services/oauth2/token", data=FORM)).json()["refresh_token"]
        stale = await plain.post("/services/oauth2/token", data=FORM)
        await plain.patch("/org/settings", json={"rotate_refresh_token": False})
        again = await plain.post("/services/oauth2/token", data=FORM | {"refresh_token": newest})

        assert stale.json()["error"] == "invalid_grant"
        assert again.status_code == 200

    async def test_requests_without_a_session_are_refused(self, api: httpx.AsyncClient) -> None:
        """No token, a wrong one and an expired one are answered alike."""
        good = api.headers["Authorization"]
        for header in ("", "Bearer nonsense", good.replace("Bearer", "Basic")):
            answer = await api.get(f"{DATA}/sobjects", headers={"Authorization": header})
            assert code(answer) == (401, "INVALID_SESSION_ID")

        assert await change(api, "POST", "/org/expire-sessions") == "1 sessions are closed."
        assert code(await api.get(f"{DATA}/sobjects")) == (401, "INVALID_SESSION_ID")


class TestDescribe:
    """GET sobjects and sobjects/{X}/describe."""

    async def test_standard_objects_are_listed(self, api: httpx.AsyncClient) -> None:
        """Each queryable, as the connector requires."""
        listed = (await api.get(f"{DATA}/sobjects")).json()["sobjects"]

        names = {entry["name"] for entry in listed if entry["queryable"]}
        assert names >= {"Account", "Contact", "Lead", "Opportunity", "Case", "Task", "Event"}
        assert names >= {"User", "Campaign", "Product2", "Pricebook2", "OpportunityLineItem"}

    async def test_standard_fields_have_their_salesforce_types(
        self, api: httpx.AsyncClient
    ) -> None:
        """Account's compound address is what makes the connector read it by REST."""
        described = await fields(api, "Account")

        assert next(iter(described)) == "Id"
        types = {name: field["type"] for name, field in described.items()}
        assert types["Id"] == "id"
        assert types["BillingAddress"] == "address"
        assert types["AnnualRevenue"] == "currency"
        assert types["SystemModstamp"] == "datetime"
        assert described["Industry"]["picklistValues"][0]["value"] == "Agriculture"
        assert described["OwnerId"]["referenceTo"] == ["User"]
        assert described["SLA__c"]["custom"]

    async def test_every_api_version_is_served(self, api: httpx.AsyncClient) -> None:
        """Unknown paths answer Salesforce's 404."""
        assert (await api.get("/services/data/v59.0/sobjects")).status_code == 200
        for path in ("/services/data/latest/sobjects", f"{DATA}/nonsense", "/services/other"):
            assert code(await api.get(path)) == (404, "NOT_FOUND")
        missing = await api.get(f"{DATA}/sobjects/Nothing__c/describe")
        assert code(missing) == (404, "NOT_FOUND")


class TestQuery:
    """GET query and queryAll."""

    async def test_pages_hold_every_row_once(self, api: httpx.AsyncClient) -> None:
        """Whatever changes between two pages, the result stays what it was."""
        await api.patch("/org/settings", json={"page_size": 200})
        page = await query(api, "SELECT Id, Name FROM Contact ORDER BY Id ASC")
        rows = page["records"]
        await change(api, "POST", "/org/objects/Contact/touch", count=500)
        while not page["done"]:
            page = (await api.get(page["nextRecordsUrl"])).json()
            rows += page["records"]

        assert len({row["Id"] for row in rows}) == len(rows) == page["totalSize"] == 500
        assert rows[0]["attributes"]["type"] == "Contact"
        assert set(rows[0]) == {"attributes", "Id", "Name"}

    async def test_client_may_request_smaller_pages(self, api: httpx.AsyncClient) -> None:
        """Between 200 and 2000, like Salesforce."""
        for asked, given in (("250", 250), ("1", 200)):
            answer = await api.get(
                f"{DATA}/query",
                params={"q": "SELECT Id FROM Contact"},
                headers={"Sforce-Query-Options": f"batchSize={asked}"},
            )
            assert len(answer.json()["records"]) == given

    async def test_compound_addresses_are_objects(self, api: httpx.AsyncClient) -> None:
        text = "SELECT BillingCity, BillingAddress FROM Account LIMIT 1"

        (row,) = (await query(api, text))["records"]

        assert row["BillingAddress"]["city"] == row["BillingCity"]

    async def test_references_lead_to_rows(self, api: httpx.AsyncClient) -> None:
        """A contact's account exists."""
        contacts = (await query(api, "SELECT AccountId FROM Contact"))["records"]
        accounts = (await query(api, "SELECT Id FROM Account"))["records"]

        assert {row["AccountId"] for row in contacts} <= {row["Id"] for row in accounts}

    async def test_invalid_requests_are_refused(self, api: httpx.AsyncClient) -> None:
        """Salesforce's codes for what the org does not have and cannot read."""
        for text, expected in (
            ("SELECT Gone__c FROM Account", "INVALID_FIELD"),
            ("SELECT Id FROM Gone__c", "INVALID_TYPE"),
            ("nonsense", "MALFORMED_QUERY"),
        ):
            answer = await api.get(f"{DATA}/queryAll", params={"q": text})
            assert code(answer) == (400, expected)
        gone = await api.get(f"{DATA}/query/01gnothing-2000")
        assert code(gone) == (400, "INVALID_QUERY_LOCATOR")
        assert (await api.get(f"{DATA}/query")).status_code == 400

    async def test_count_returns_a_number_and_no_rows(self, api: httpx.AsyncClient) -> None:
        page = await query(api, "SELECT COUNT() FROM Lead")

        assert (page["totalSize"], page["records"]) == (300, [])


class TestBulk:
    """Bulk 2.0 query jobs."""

    async def test_results_are_read_page_by_page(self, api: httpx.AsyncClient) -> None:
        """The headers are spelled as Salesforce spells them: the connector needs the case."""
        job = (await start_job(api, "SELECT Id, Name, IsWon, CloseDate FROM Opportunity")).json()
        assert job["state"] == "UploadComplete"
        shown = (await api.get(f"{DATA}/jobs/query/{job['id']}")).json()
        assert (shown["state"], shown["numberRecordsProcessed"]) == ("JobComplete", 400)

        rows, locator = [], ""
        while locator != "null":
            answer = await api.get(
                f"{DATA}/jobs/query/{job['id']}/results",
                params={"maxRecords": "150"} | ({"locator": locator} if locator else {}),
            )
            spelled = {name.decode() for name, _ in answer.headers.raw}
            assert {"Content-Type", "Sforce-Locator", "Sforce-NumberOfRecords"} <= spelled
            locator = answer.headers["Sforce-Locator"]
            page = list(csv.DictReader(io.StringIO(answer.text)))
            assert len(page) == int(answer.headers["Sforce-NumberOfRecords"])
            rows += page

        assert len({row["Id"] for row in rows}) == len(rows) == 400
        assert {row["IsWon"] for row in rows} == {"true", "false"}

    async def test_csv_format_of_times_and_nulls(self, api: httpx.AsyncClient) -> None:
        """Times end in Z, and null is an empty cell."""
        job = (await start_job(api, "SELECT SystemModstamp, ParentId FROM Case")).json()

        answer = await api.get(f"{DATA}/jobs/query/{job['id']}/results")

        first = next(csv.DictReader(io.StringIO(answer.text)))
        assert first["SystemModstamp"].endswith(".000Z")
        assert first["ParentId"] == ""

    async def test_running_job_can_only_be_aborted(self, api: httpx.AsyncClient) -> None:
        """Its results wait; a finished one can only be deleted."""
        await api.patch("/org/settings", json={"bulk_delay_ms": 60_000})
        job = (await start_job(api, "SELECT Id FROM Case")).json()
        path = f"{DATA}/jobs/query/{job['id']}"
        assert (await api.get(path)).json()["state"] == "InProgress"
        assert code(await api.get(f"{path}/results")) == (400, "INVALIDJOBSTATE")
        assert code(await api.delete(path)) == (400, "INVALIDJOBSTATE")

        aborted = await api.patch(path, json={"state": "Aborted"})

        assert aborted.json()["state"] == "Aborted"
        assert code(await api.patch(path, json={"state": "Aborted"})) == (400, "INVALIDJOBSTATE")
        assert (await api.delete(path)).status_code == 204
        assert code(await api.get(path)) == (404, "NOT_FOUND")

    async def test_invalid_requests_are_refused(self, api: httpx.AsyncClient) -> None:
        """The compound one makes the connector fall back to REST."""
        compound = await start_job(api, "SELECT BillingAddress FROM Account")
        assert compound.status_code == 400
        assert "compound data not supported in Bulk Query" in compound.json()[0]["message"]
        assert code(await start_job(api, "SELECT Gone__c FROM Account")) == (400, "INVALID_FIELD")
        assert code(await start_job(api, "SELECT Id FROM Gone__c")) == (400, "INVALID_TYPE")
        broken = await api.post(
            f"{DATA}/jobs/query", content=b"{", headers={"Content-Type": "application/json"}
        )
        assert code(broken) == (400, "JSON_PARSER_ERROR")
        odd = await api.post(f"{DATA}/jobs/query", json={"operation": "delete", "query": "x"})
        assert code(odd) == (400, "INVALIDJOB")


class TestChanges:
    """The org's own API."""

    async def test_new_field_has_values_and_touches_the_rows(self, api: httpx.AsyncClient) -> None:
        """Only rows that got a value count as modified."""
        before = (await query(api, "SELECT SystemModstamp FROM Account"))["records"]
        newest = max(row["SystemModstamp"] for row in before)

        told = await change(
            api, "POST", "/org/objects/Account/fields", name="Region__c", values=["EMEA", None]
        )

        assert told == "Account has a new field Region__c (string); 100 rows got a value."
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
        told = await change(api, "DELETE", "/org/objects/Account/fields/SLA__c")

        assert told == "Account no longer has the field SLA__c."
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
        told = await change(api, "POST", "/org/objects/Lead/touch")

        assert told == "1 rows of Lead have a new SystemModstamp."
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
        for sobject in a.live.org.kept():
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
