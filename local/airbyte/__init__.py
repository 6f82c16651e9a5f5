"""A local Airbyte stand-in: serves the part of its API that AAM calls, using real connectors.

It is not Airbyte, and every response has a header that says so. Start it with
`python -m local.airbyte`.
"""

from uuid import UUID

WORKSPACE_ID = UUID("7c1f0d5e-2a53-4a0e-9b63-5d1c0a9f1e01")
"""The only workspace."""

DESTINATION_ID = UUID("7c1f0d5e-2a53-4a0e-9b63-5d1c0a9f1e02")
"""The destination "Local warehouse", created at startup if a warehouse URL is configured."""

DESTINATION_DEFINITION_ID = UUID("7c1f0d5e-2a53-4a0e-9b63-5d1c0a9f1e03")
"""Definition id of the local Postgres writer. It is not Airbyte's destination-postgres."""
