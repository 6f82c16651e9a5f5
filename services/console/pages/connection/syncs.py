"""The syncs of a connection, their logs, and cancelling one that runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from services.console.api import Api, CallerApi
from services.console.forms import SubmittedForm
from services.console.pages.connection.actions import back_to
from services.console.pages.connection.chart import MOST_BARS, chart_of
from services.console.pages.connection.head import PATH, opened, show
from services.console.pages.connection.words import duration, sentence, size
from services.console.problems import ApiProblem

router = APIRouter()

_MOST: Final = 50
_LOG_LINES: Final = 200
_STATUSES: Final = {
    "succeeded": ("good", "Succeeded"),
    "failed": ("bad", "Failed"),
    "cancelled": ("", "Cancelled"),
    "pending": ("info", "Starting"),
    "running": ("info", "Running"),
    "incomplete": ("info", "Running"),
}
_CANCEL_WAIT_S: Final = 5


@dataclass(frozen=True, slots=True)
class _Row:
    """One sync as the table shows it."""

    job: Mapping[str, Any]
    tone: str
    status: str
    size: str
    duration: str
    cause: str

    @property
    def is_running(self) -> bool:
        """Whether it can be cancelled."""
        return self.job.get("ended_at") is None


def _row(job: Mapping[str, Any]) -> _Row:
    tone, status = _STATUSES.get(job["status"], ("", sentence(job["status"])))
    cause = job.get("failure_explanation")
    if not cause and job.get("failure_cause") not in (None, "unknown"):
        cause = f"{sentence(job['failure_cause'])}."
    return _Row(
        job,
        tone=tone,
        status=status,
        size=size(job.get("bytes")),
        duration=duration(job.get("duration_seconds")),
        cause=cause or "",
    )


@router.get(f"{PATH}/syncs")
async def syncs(
    request: Request,
    api: CallerApi,
    connection_id: UUID,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Show one page of the syncs, newest first."""
    return await _page(request, api, connection_id, after=after)


async def _page(
    request: Request,
    api: Api,
    connection_id: UUID,
    *,
    after: str | None = None,
    problem: ApiProblem | None = None,
) -> Response:
    head, panels = await opened(
        api,
        connection_id,
        jobs=api.orchestrator.get("/connections/{}/jobs", connection_id, after=after, limit=_MOST),
    )
    jobs = panels["jobs"].value or {"items": [], "next": None}
    return show(
        request,
        "connection_syncs.j2",
        head,
        tab="syncs",
        problem=problem,
        jobs=panels["jobs"],
        rows=[_row(job) for job in jobs["items"]],
        chart=chart_of(jobs["items"][:MOST_BARS]) if after is None else None,
        next=jobs["next"],
        is_first=after is None,
    )


@router.get(f"{PATH}/syncs/{{job_id}}")
async def log(
    request: Request,
    api: CallerApi,
    connection_id: UUID,
    job_id: UUID,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Show the end of a sync's log in Airbyte, and the errors of its connectors."""
    head, panels = await opened(
        api,
        connection_id,
        log=api.orchestrator.get(
            "/connections/{}/jobs/{}/logs", connection_id, job_id, after=after, limit=_LOG_LINES
        ),
    )
    return show(
        request,
        "connection_sync_log.j2",
        head,
        tab="syncs",
        log=panels["log"],
        job_id=job_id,
        is_first=after is None,
    )


@router.post(f"{PATH}/syncs/{{job_id}}/cancel")
async def cancel(
    request: Request, api: CallerApi, connection_id: UUID, job_id: UUID, form: SubmittedForm
) -> Response:
    """Cancel a sync that runs; rows that are already in the destination stay there."""
    try:
        reply = await api.orchestrator.post(
            "/connections/{}/jobs/{}/cancel",
            connection_id,
            job_id,
            query={"wait": _CANCEL_WAIT_S},
            idempotency_key=form.idempotency_key,
        )
    except ApiProblem as problem:
        return await _page(request, api, connection_id, problem=problem)
    if reply.is_in_progress:
        return back_to(connection_id, "cancelling", tab="syncs")
    done = "cancelled" if reply.body.get("status") == "cancelled" else "ended"
    return back_to(connection_id, done, tab="syncs")
