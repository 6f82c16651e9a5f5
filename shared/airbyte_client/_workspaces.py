"""Workspaces."""

from __future__ import annotations

from uuid import UUID

import msgspec

from shared.airbyte_client._calls import Calls, expect_requested
from shared.airbyte_client._schemas import Workspace

_WORKSPACE = msgspec.json.Decoder(Workspace)


class Workspaces(Calls):
    """Workspaces, to which sources, destinations and connections belong."""

    async def get_workspace(self, workspace_id: UUID) -> Workspace:
        """One workspace.

        Endpoint: POST workspaces/get
        Sends:    {"workspaceId": uuid}
        Receives: {"workspaceId": uuid, "name": str, ...}

        Raises:
            UpstreamMissing, UpstreamForbidden: Airbyte has no such workspace, or AAM's login may
                not read it; which of the two depends on Airbyte's version and login.
        """
        read = await self._post(
            "workspaces/get", {"workspaceId": workspace_id}, _WORKSPACE, repeat=True
        )
        expect_requested("workspaces/get", read.workspace_id, workspace_id)
        return read
