"""The sample org answers as Salesforce does."""

from __future__ import annotations

import csv
import io

import httpx
import pytest

from tests.integration.local.org_client import (
    DATA,
    FORM,
    change,
    code,
    fields,
    query,
    start_job,
)


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
        for requested, given in (("250", 250), ("1", 200)):
            answer = await api.get(
                f"{DATA}/query",
                params={"q": "SELECT Id FROM Contact"},
                headers={"Sforce-Query-Options": f"batchSize={requested}"},
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
