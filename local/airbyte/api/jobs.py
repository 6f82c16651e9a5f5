"""Jobs and their attempts."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from local.airbyte.api import reads
from local.airbyte.api.backend import Backend
from local.airbyte.api.defaults import JOBS_PAGE_SIZE
from local.airbyte.api.requests import Body, uuid_of
from local.airbyte.api.routes import post
from local.airbyte.errors import forbidden, uncaught, unreadable

Json = dict[str, Any]


@post("jobs/get")
async def get(backend: Backend, body: Body) -> Json:
    """Read a job with its attempts and their logs."""
    return job_info(backend, _job(backend, body))


@post("jobs/get_without_logs")
async def get_without_logs(backend: Backend, body: Body) -> Json:
    """Read a job with its attempts."""
    return job_info(backend, _job(backend, body), with_logs=False)


@post("jobs/get_light")
async def get_light(backend: Backend, body: Body) -> Json:
    """Read a job alone."""
    return {"job": _job(backend, body)}


def _job(backend: Backend, body: Body) -> Json:
    job_id: int = body.required("id", int)
    backend.before_read(backend.job(job_id))
    return backend.job(job_id)


def job_info(backend: Backend, job: Json, *, with_logs: bool = True) -> Json:
    """Build a JobInfoRead."""
    release = backend.release
    attempts = []
    for attempt in backend.list_attempts(job["id"]):
        lines = backend.log_lines(job["id"], attempt["id"]) if with_logs else []
        attempts.append({"attempt": attempt, **reads.logs(lines, release)})
    return {"job": job, "attempts": attempts}


@post("jobs/list")
async def list_(backend: Backend, body: Body) -> Json:
    """List jobs of some types, newest first unless the request orders otherwise.

    Without a connection's id it lists those of the instance, which takes its administrator.
    """
    if backend.release.is_cloud and body.optional("configId", str) is None:
        raise forbidden()
    return _listed(backend, body)


@post("jobs/list_for_workspaces")
async def list_for_workspaces(backend: Backend, body: Body) -> Json:
    """List jobs of workspaces; the total is that of the page."""
    given = [uuid_of(one, "workspaceIds") for one in body.required("workspaceIds", list)]
    if not backend.instance.workspaces.keys() >= set(given):
        raise forbidden()
    page = _listed(backend, body, given)
    return {"jobs": page["jobs"], "totalJobCount": len(page["jobs"])}


def _listed(backend: Backend, body: Body, workspaces: Collection[str] | None = None) -> Json:
    types, statuses = body.required("configTypes", list), body.optional("statuses", list)
    since = _moment(body, "createdAtStart")
    found = [
        job
        for job in backend.list_jobs(body.optional("configId", str), workspaces=workspaces)
        if job["configType"] in types
        and (not statuses or job["status"] in statuses)
        and (since is None or job["createdAt"] >= since - 1)
    ]
    if body.optional("orderByMethod", str) == "ASC":
        found.reverse()
    page = body.optional("pagination", dict) or {}
    start, size = page.get("rowOffset") or 0, page.get("pageSize") or JOBS_PAGE_SIZE
    for job in found:
        backend.before_read(job)
    listed = [
        {"job": backend.job(job["id"]), "attempts": backend.list_attempts(job["id"])}
        for job in found[start:][:size]
    ]
    return {"jobs": listed, "totalJobCount": len(found)}


def _moment(body: Body, name: str) -> float | None:
    given = body.optional(name, str)
    try:
        return None if given is None else datetime.fromisoformat(given).timestamp()
    except ValueError as error:
        raise unreadable(f"{name} is not a time.") from error


@post("jobs/cancel")
async def cancel(backend: Backend, body: Body) -> Json:
    """Cancel an open job."""
    job = backend.job(body.required("id", int))
    if not await backend.cancel_job(job["id"]):
        raise uncaught("Transitioning Job out of a terminal state")
    return job_info(backend, backend.job(job["id"]))
