"""Dagster's integration (dagster-airbyte): AirbyteWorkspace."""

import json
import sys

from dagster_airbyte import AirbyteWorkspace

place = json.load(sys.stdin)
workspace = AirbyteWorkspace(
    rest_api_base_url=place["public"],
    configuration_api_base_url=place["config"],
    workspace_id=place["workspace"],
    client_id=place["client_id"],
    client_secret=place["client_secret"],
    poll_interval=0.5,
    poll_timeout=90,
    request_max_retries=0,
)
found = workspace.fetch_airbyte_workspace_data()
client = workspace.get_client()
output = client.sync_and_poll(place["connection"])
listed = client.get_jobs_for_connection(place["connection"])
json.dump(
    {
        "workspaces": [place["workspace"]],
        "connections": {one.id: list(one.streams) for one in found.connections_by_id.values()},
        "job": {"status": output.job_details["status"], "rows": output.job_details["rowsSynced"]},
        "listed": output.job_details["jobId"] in [one.id for one in listed],
        "tables": [one.table_name for one in found.to_airbyte_connection_table_props_data()],
    },
    sys.stdout,
)
