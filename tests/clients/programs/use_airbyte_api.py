"""Airbyte's own Python SDK for the public API (airbyte-api)."""

import json
import sys
import time

import airbyte_api
from airbyte_api import api, models

place = json.load(sys.stdin)
sdk = airbyte_api.AirbyteAPI(
    server_url=place["public"],
    security=models.Security(
        client_credentials=models.SchemeClientCredentials(
            client_id=place["client_id"],
            client_secret=place["client_secret"],
            token_url=f"{place['public']}/applications/token",
        )
    ),
)
health = sdk.health.get_health_check()
workspaces = sdk.workspaces.list_workspaces(request=api.ListWorkspacesRequest())
connections = sdk.connections.list_connections(request=api.ListConnectionsRequest())
order = models.JobCreateRequest(connection_id=place["connection"], job_type=models.JobTypeEnum.SYNC)
job = sdk.jobs.create_job(request=order).job_response
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(0.5)  # the API has no call that waits for a job: its clients poll
    job = sdk.jobs.get_job(request=api.GetJobRequest(job_id=job.job_id)).job_response
listed = sdk.jobs.list_jobs(request=api.ListJobsRequest(connection_id=place["connection"]))
json.dump(
    {
        "health": health.status_code,
        "workspaces": [one.workspace_id for one in workspaces.workspaces_response.data],
        "connections": {
            one.connection_id: [stream.name for stream in one.configurations.streams]
            for one in connections.connections_response.data
        },
        "job": {"status": job.status.value, "rows": job.rows_synced},
        "listed": job.job_id in [one.job_id for one in listed.jobs_response.data],
    },
    sys.stdout,
)
