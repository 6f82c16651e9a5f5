"""A local execution plane: answers the part of Airbyte's API AAM calls, with real connectors.

It is not Airbyte, and says so in a header of every answer. `python -m local.airbyte` starts it.
"""

from uuid import UUID

WORKSPACE_ID = UUID("7c1f0d5e-2a53-4a0e-9b63-5d1c0a9f1e01")
"""The one workspace there is."""

DESTINATION_ID = UUID("7c1f0d5e-2a53-4a0e-9b63-5d1c0a9f1e02")
"""The destination "Local warehouse", which exists from the start when a warehouse URL is set."""

DESTINATION_DEFINITION_ID = UUID("7c1f0d5e-2a53-4a0e-9b63-5d1c0a9f1e03")
"""The Postgres writer of this plane. Not Airbyte's destination-postgres, hence not its id."""
