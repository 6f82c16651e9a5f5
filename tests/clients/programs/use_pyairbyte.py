"""PyAirbyte's client for Airbyte Cloud (airbyte.cloud), with the URLs of a self-managed Airbyte."""

import json
import sys

from airbyte.cloud import CloudWorkspace

place = json.load(sys.stdin)
workspace = CloudWorkspace(
    workspace_id=place["workspace"],
    client_id=place["client_id"],
    client_secret=place["client_secret"],
    api_root=place["public"],
)
workspace.connect()
connections = workspace.list_connections()
connection = workspace.get_connection(place["connection"])
result = connection.run_sync(wait=True, wait_timeout=90)
listed = connection.get_previous_sync_logs(limit=5)
catalog = connection.dump_raw_catalog()
json.dump(
    {
        "workspaces": [workspace.workspace_id],
        "connections": {one.connection_id: one.stream_names for one in connections},
        "job": {"status": result.get_job_status().value, "rows": result.records_synced},
        "listed": result.job_id in [one.job_id for one in listed],
        "state": connection.dump_raw_state(normalize=False)["stateType"],
        "catalog": {one["stream"]["name"]: one["selected"] for one in catalog["streams"]},
    },
    sys.stdout,
)
