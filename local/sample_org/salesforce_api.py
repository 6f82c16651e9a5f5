"""The part of Salesforce's API that a replicating client calls.

Every API version is served in the same way. Errors have Salesforce's format and codes, not AAM's.
"""

from __future__ import annotations

import asyncio
import csv
import io
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import parse_qs

import orjson
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict

from local.sample_org import soql
from local.sample_org.org import SalesforceError, describe, list_entry
from local.sample_org.running_org import Endpoint, LiveOrg
from local.sample_org.sample_rows import Row, salesforce_time

INSTANCE_HOST = "sample-org.my.salesforce.com"
"""Host in the instance URL; under salesforce.com, so that later calls use the same proxy."""

_ROOT = "/services/data/{version}"
_RESULTS_KEPT = 200
_JOBS_KEPT = 1000
_CODES = {
    401: ("INVALID_SESSION_ID", "Session expired or invalid"),
    403: ("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."),
    404: ("NOT_FOUND", "The requested resource does not exist"),
    429: ("REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded."),
    503: ("SERVER_UNAVAILABLE", "Server Unavailable"),
}
_UNKNOWN = ("UNKNOWN_EXCEPTION", "An unexpected error occurred.")


Options = Annotated[str | None, Header(alias="Sforce-Query-Options")]
"""The page size that the client requests: `batchSize=500`."""


class NewJob(BaseModel):
    """The request body that creates a bulk query job."""

    model_config = ConfigDict(extra="ignore")

    operation: str
    query: str
    contentType: str = "CSV"
    columnDelimiter: str = "COMMA"
    lineEnding: str = "LF"


@dataclass
class Job:
    """A bulk query job; its rows are found when it is created."""

    id: str
    order: NewJob
    api_version: float
    result: soql.Result
    created: datetime
    done_at: float
    """On the monotonic clock."""
    aborted: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def state(self) -> str:
        """The job's state in Salesforce's terms."""
        if self.aborted:
            return "Aborted"
        return "JobComplete" if time.monotonic() >= self.done_at else "InProgress"

    def view(self) -> dict[str, Any]:
        """Return the job as `jobs/query/{id}` answers it."""
        return {
            "id": self.id,
            "operation": self.order.operation,
            "object": self.result.sobject.name,
            "createdById": "0055f0000000001AAA",
            "createdDate": salesforce_time(self.created),
            "systemModstamp": salesforce_time(self.created),
            "state": self.state,
            "concurrencyMode": "Parallel",
            "contentType": "CSV",
            "apiVersion": self.api_version,
            "jobType": "V2Query",
            "lineEnding": self.order.lineEnding,
            "columnDelimiter": self.order.columnDelimiter,
            "numberRecordsProcessed": len(self.result.rows) if self.state == "JobComplete" else 0,
            "retries": 0,
            "totalProcessingTime": int((time.monotonic() - self.started) * 1000),
        }


class Answer(Response):
    """JSON with Salesforce's content type."""

    media_type = "application/json;charset=UTF-8"

    def render(self, content: Any) -> bytes:
        """Serialize the content; it has only plain JSON types."""
        return orjson.dumps(content)


def refuse(error: SalesforceError) -> Answer:
    """Format an error as Salesforce does: a list of one."""
    return Answer([{"message": error.message, "errorCode": error.code}], error.status)


def not_found() -> SalesforceError:
    """Return Salesforce's error for an unknown path."""
    return SalesforceError(404, *_CODES[404])


def routes(live: LiveOrg) -> APIRouter:  # noqa: PLR0915 -- one nested function per endpoint
    """Build Salesforce's API for one org. Open query results and jobs live only as long as it."""
    results: OrderedDict[str, soql.Result] = OrderedDict()
    jobs: OrderedDict[str, Job] = OrderedDict()

    async def pace(endpoint: Endpoint) -> None:
        live.calls[endpoint] += 1
        if live.behaviour.latency_ms:
            await asyncio.sleep(live.behaviour.latency_ms / 1000)
        if failure := live.next_failure(endpoint):
            raise SalesforceError(failure.status, *_CODES.get(failure.status, _UNKNOWN))

    def allowed(endpoint: Endpoint) -> Any:
        async def enter(request: Request) -> None:
            await pace(endpoint)
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            if scheme not in {"Bearer", "OAuth"} or not live.knows_session(token):
                raise SalesforceError(401, *_CODES[401])
            if not re.fullmatch(r"v\d\d\.0", request.path_params["version"]):
                raise not_found()

        return Depends(enter)

    router = APIRouter(default_response_class=Answer)

    @router.post("/services/oauth2/token")
    async def token(request: Request) -> Answer:
        """Exchange a refresh token for an access token."""
        await pace("token")
        form = {k: v[-1] for k, v in parse_qs((await request.body()).decode("latin-1")).items()}
        if form.get("grant_type") != "refresh_token":
            return _denied("unsupported_grant_type", "grant type not supported")
        if not live.knows_client(form.get("client_id", "")):
            return _denied("invalid_client_id", "client identifier invalid")
        if not live.knows_secret(form.get("client_secret", "")):
            return _denied("invalid_client", "invalid client credentials")
        if not live.knows_refresh_token(form.get("refresh_token", "")):
            return _denied("invalid_grant", "expired access/refresh token")
        answer = {
            "access_token": live.open_session(),
            "signature": secrets.token_urlsafe(32),
            "scope": "refresh_token web api",
            "instance_url": f"https://{INSTANCE_HOST}",
            "id": "https://login.salesforce.com/id/00D5f0000000001EAA/0055f0000000001AAA",
            "token_type": "Bearer",
            "issued_at": str(int(time.time() * 1000)),
        }
        if live.behaviour.rotate_refresh_token:
            answer["refresh_token"] = live.rotate()
        return Answer(answer)

    @router.get(f"{_ROOT}/sobjects", dependencies=[allowed("sobjects")])
    async def sobjects() -> Answer:
        """List every object that the user may see."""
        return Answer(
            {
                "encoding": "UTF-8",
                "maxBatchSize": 200,
                "sobjects": [list_entry(sobject) for sobject in live.org.visible()],
            }
        )

    @router.get(f"{_ROOT}/sobjects/{{name}}/describe", dependencies=[allowed("describe")])
    async def describe_sobject(name: str) -> Answer:
        """Describe one object with all its fields."""
        sobject = live.org.find_visible(name)
        if sobject is None:
            raise not_found()
        return Answer(describe(sobject))

    def page(result: soql.Result, locator: str, start: int, size: int, path: str) -> Answer:
        end = start + size
        names = result.query.fields
        root = path.rsplit("/query", 1)[0]
        body: dict[str, Any] = {
            "totalSize": len(result.rows),
            "done": end >= len(result.rows),
            "records": [
                _record(result.sobject.name, names, row, root) for row in result.rows[start:end]
            ],
        }
        if not body["done"]:
            results[locator] = result
            while len(results) > _RESULTS_KEPT:
                results.popitem(last=False)
            body["nextRecordsUrl"] = f"{root}/query/{locator}-{end}"
        return Answer(body)

    def batch_size(options: str | None) -> int:
        match = re.fullmatch(r"batchSize=(\d{1,6})", options or "")
        size = min(2000, max(200, int(match[1]))) if match else live.behaviour.page_size
        return min(size, live.behaviour.page_size)

    def first_page(request: Request, text: str, options: str | None, *, deleted: bool) -> Answer:
        result = soql.run(soql.parse(text), live.org, deleted=deleted)
        if result.query.fields == (soql.COUNT,):
            return Answer({"totalSize": len(result.rows), "done": True, "records": []})
        locator = f"01g5f{secrets.token_hex(6)}"
        return page(result, locator, 0, batch_size(options), request.url.path)

    @router.get(f"{_ROOT}/query", dependencies=[allowed("query")])
    async def query(request: Request, q: str, options: Options = None) -> Answer:
        """Find rows, except those in the recycle bin."""
        return first_page(request, q, options, deleted=False)

    @router.get(f"{_ROOT}/queryAll", dependencies=[allowed("query")])
    async def query_all(request: Request, q: str, options: Options = None) -> Answer:
        """Find rows, including those in the recycle bin."""
        return first_page(request, q, options, deleted=True)

    @router.get(f"{_ROOT}/query/{{cursor}}", dependencies=[allowed("query")])
    @router.get(f"{_ROOT}/queryAll/{{cursor}}", dependencies=[allowed("query")])
    async def more(request: Request, cursor: str, options: Options = None) -> Answer:
        """Return the next page of a result, at the position in `nextRecordsUrl`."""
        locator, _, start = cursor.rpartition("-")
        result = results.get(locator)
        if result is None or not re.fullmatch(r"\d{1,9}", start):
            raise SalesforceError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        return page(result, locator, int(start), batch_size(options), request.url.path)

    @router.post(f"{_ROOT}/jobs/query", dependencies=[allowed("job")])
    async def create_job(version: str, order: NewJob) -> Answer:
        """Start a bulk query."""
        if order.operation not in {"query", "queryAll"}:
            raise SalesforceError(400, "INVALIDJOB", "Unsupported operation for a query job")
        if (order.contentType, order.columnDelimiter, order.lineEnding) != ("CSV", "COMMA", "LF"):
            raise SalesforceError(400, "INVALIDJOB", "Only CSV with COMMA and LF is served here")
        read = soql.parse(order.query)
        result = soql.run(read, live.org, deleted=order.operation == "queryAll")
        if any(
            result.sobject.fields[name].type == "address"
            for name in read.fields
            if name != soql.COUNT
        ):
            raise SalesforceError(
                400, "INVALID_FIELD", "Selecting compound data not supported in Bulk Query"
            )
        now = datetime.now(UTC)
        done = time.monotonic() + live.behaviour.bulk_delay_ms / 1000
        job = Job(f"7505f{secrets.token_hex(6)}Q", order, float(version[1:]), result, now, done)
        jobs[job.id] = job
        while len(jobs) > _JOBS_KEPT:
            jobs.popitem(last=False)
        return Answer(job.view() | {"state": "UploadComplete"})

    def find_job(job_id: str) -> Job:
        if job_id not in jobs:
            raise not_found()
        return jobs[job_id]

    @router.get(f"{_ROOT}/jobs/query/{{job_id}}", dependencies=[allowed("job")])
    async def show_job(job_id: str) -> Answer:
        """Show the state of a bulk query."""
        return Answer(find_job(job_id).view())

    @router.patch(f"{_ROOT}/jobs/query/{{job_id}}", dependencies=[allowed("job")])
    async def abort_job(job_id: str, request: Request) -> Answer:
        """Abort a bulk query that is still running."""
        job = find_job(job_id)
        if b'"Aborted"' not in await request.body():
            raise SalesforceError(400, "INVALIDJOBSTATE", "A job can only be set to Aborted")
        if job.state != "InProgress":
            raise SalesforceError(400, "INVALIDJOBSTATE", f"Aborting a {job.state} job")
        job.aborted = True
        return Answer(job.view())

    @router.delete(f"{_ROOT}/jobs/query/{{job_id}}", dependencies=[allowed("job")])
    async def delete_job(job_id: str) -> Response:
        """Delete a bulk query that has ended."""
        if find_job(job_id).state == "InProgress":
            raise SalesforceError(400, "INVALIDJOBSTATE", "Deleting a job in progress")
        del jobs[job_id]
        return Response(status_code=204)

    @router.get(f"{_ROOT}/jobs/query/{{job_id}}/results", dependencies=[allowed("results")])
    async def job_results(
        job_id: str,
        locator: str | None = None,
        max_records: Annotated[int | None, Query(alias="maxRecords", ge=1)] = None,
    ) -> Response:
        """Return one page of a bulk query's rows as CSV."""
        job = find_job(job_id)
        if job.state != "JobComplete":
            raise SalesforceError(400, "INVALIDJOBSTATE", f"The job is {job.state}")
        start = _position(locator)
        end = start + (max_records or live.behaviour.bulk_page_size)
        rows = job.result.rows[start:end]
        more = end < len(job.result.rows)
        response = Response(_csv(job.result.query.fields, rows))
        # Salesforce's capitalization, which clients depend on; the framework would lower-case it.
        response.raw_headers = [
            (b"Content-Type", b"text/csv"),
            (b"Content-Length", str(len(response.body)).encode()),
            (b"Sforce-Locator", _locator(end) if more else b"null"),
            (b"Sforce-NumberOfRecords", str(len(rows)).encode()),
        ]
        return response

    @router.api_route("/services/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def unknown(rest: str) -> Answer:  # noqa: ARG001 -- the path is what matched
        return refuse(not_found())

    return router


def _denied(error: str, description: str) -> Answer:
    return Answer({"error": error, "error_description": description}, 400)


def _record(sobject: str, names: Iterable[str], row: Row, root: str) -> dict[str, Any]:
    attributes = {"type": sobject, "url": f"{root}/sobjects/{sobject}/{row['Id']}"}
    return {"attributes": attributes} | {name: row.get(name) for name in names}


def _locator(position: int) -> bytes:
    return b"MT" + f"{position:x}".encode()


def _position(locator: str | None) -> int:
    if locator is None:
        return 0
    found = re.fullmatch(r"MT([0-9a-f]{1,8})", locator)
    if found is None:
        raise SalesforceError(400, "INVALIDLOCATOR", "The locator is not one of this job's")
    return int(found[1], 16)


def _csv(names: tuple[str, ...], rows: list[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str() if value.endswith("+0000") and "T" in value:
            return value.removesuffix("+0000") + "Z"
        case _:
            return str(value)
