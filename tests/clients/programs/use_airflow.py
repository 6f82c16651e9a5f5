"""Airflow's provider (apache-airflow-providers-airbyte): its hook and its operator."""

import json
import os
import sys
import tempfile

place = json.load(sys.stdin)
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp()
os.environ["AIRFLOW_CONN_AIRBYTE"] = json.dumps(
    {
        "conn_type": "airbyte",
        "host": place["public"],
        "login": place["client_id"],
        "password": place["client_secret"],
        "schema": f"{place['public']}/applications/token",
    }
)

from airbyte_api import api  # noqa: E402
from airflow.providers.airbyte.hooks.airbyte import AirbyteHook  # noqa: E402
from airflow.providers.airbyte.operators.airbyte import (  # noqa: E402
    AirbyteTriggerSyncOperator,
)

hook = AirbyteHook(airbyte_conn_id="airbyte")
connections = hook.airbyte_api.connections.list_connections(request=api.ListConnectionsRequest())
is_well, message = hook.test_connection()
operator = AirbyteTriggerSyncOperator(
    task_id="sync",
    airbyte_conn_id="airbyte",
    connection_id=place["connection"],
    wait_seconds=0.5,
    timeout=90,
)
job_id = operator.execute({})
job = hook.get_job_details(job_id)
sys.stdout.write(
    "\n"
    + json.dumps(
        {
            "health": is_well,
            "message": message,
            "connections": {
                one.connection_id: [stream.name for stream in one.configurations.streams]
                for one in connections.connections_response.data
            },
            "job": {"status": job.status, "rows": job.rows_synced},
        }
    )
)
