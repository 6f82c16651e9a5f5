"""The Airbyte workspace that AAM uses."""

from __future__ import annotations

from uuid import UUID

from shared.airbyte_client import AirbyteClient
from shared.config import Settings
from shared.errors import Unavailable, UpstreamForbidden


async def workspace_of(settings: Settings, airbyte: AirbyteClient) -> UUID:
    """The workspace from the settings, else the default of the Airbyte instance.

    Raises:
        Unavailable: neither names one.
        Upstream: Airbyte cannot be queried.
    """
    if settings.airbyte_workspace_id is not None:
        return settings.airbyte_workspace_id
    try:
        workspace_id = (await airbyte.instance()).default_workspace_id
    except UpstreamForbidden:  # an Airbyte with several tenants, such as Airbyte Cloud
        workspace_id = None
    if workspace_id is None:
        raise Unavailable(
            "Airbyte has no default workspace: set AIRBYTE_WORKSPACE_ID.",
            code="airbyte_workspace_not_set",
        )
    return workspace_id
