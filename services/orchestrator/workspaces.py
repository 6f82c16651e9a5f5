"""The Airbyte workspaces that AAM uses: the default one, and those of its connections."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from services.orchestrator import workspace_queries
from services.orchestrator.airbyte_workspace import workspace_of
from services.orchestrator.preflight import nothing_recorded
from shared import batches
from shared.airbyte_client import AirbyteClient
from shared.config import Settings
from shared.database import Database
from shared.errors import Invalid, UpstreamForbidden, UpstreamMissing

CACHED_S = 300.0
"""How long the name of a workspace is used without reading it again."""
_MOST_NAMES = 1000
_MAX_CONCURRENCY = 4

WORKSPACE: dict[str, Any] = {
    "id": "2f0c9b8a-7d6e-4c5b-8a49-3827160f5e4d",
    "name": "Marketing",
    "failure_code": None,
    "is_default": False,
    "connections": 12,
    "discoveries_at_once": 4,
    "discoveries_running": 1,
    "sources_due": 0,
}


class WorkspaceView(BaseModel):
    """An Airbyte workspace that AAM uses."""

    model_config = ConfigDict(json_schema_extra={"examples": [WORKSPACE]})

    id: UUID
    name: str | None
    """Null if Airbyte does not give it; `failure_code` is the reason."""
    failure_code: str | None = None
    """The code of the error with which Airbyte refused to show it, such as `upstream_missing`."""
    is_default: bool
    """Whether new sources are created in it unless a request names another."""
    connections: int
    """Connections that are not archived."""
    discoveries_at_once: int
    """The most discoveries of scheduled observations at once, DISCOVERIES_AT_ONCE."""
    discoveries_running: int
    """How many of them are in use now."""
    sources_due: int
    """Sources whose observation is due and waits."""


class WorkspacePage(BaseModel):
    """The workspaces that AAM uses: the default one first, the others by name."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [WORKSPACE], "next": None}]}
    )

    items: list[WorkspaceView]
    next: None = Field(default=None, description="Always null: there is one page.")


class Workspaces:
    """Finds the workspace of a request, and lists those that AAM uses."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        airbyte: AirbyteClient,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._db = db
        self._airbyte = airbyte
        self._clock = clock
        self._default: UUID | None = None
        self._names: OrderedDict[UUID, tuple[float, str]] = OrderedDict()

    async def default(self) -> UUID:
        """The workspace that is used unless a request names another.

        Raises:
            Unavailable: there is no such workspace, or Airbyte is unavailable.
        """
        if self._default is None:
            with nothing_recorded():
                self._default = await workspace_of(self._settings, self._airbyte)
        return self._default

    async def requested(self, given: UUID | None) -> UUID:
        """The workspace that a request names, or else the default.

        Raises:
            Invalid: `unknown_workspace`: Airbyte has no such workspace for AAM.
            Unavailable: there is no default, or Airbyte is unavailable.
        """
        if given is None:
            return await self.default()
        if given != self._settings.airbyte_workspace_id:
            try:
                with nothing_recorded():
                    await self._name(given)
            except (UpstreamMissing, UpstreamForbidden):
                raise Invalid(
                    f"Airbyte has no workspace {given}, or AAM's login may not use it.",
                    code="unknown_workspace",
                ) from None
        return given

    async def page(self) -> WorkspacePage:
        """The default workspace, and each that a connection uses.

        A workspace that Airbyte does not show is listed without its name.

        Raises:
            Unavailable: the registry is unavailable, or it is unknown which one is the default.
        """
        default = await self.default()
        async with self._db.read() as session:
            loads = await workspace_queries.loads(session, default)
        outcomes = await batches.each(
            loads,
            lambda load: self._name(load.workspace_id),
            log_event="workspace_not_read",
            fields=lambda load: {"workspace": str(load.workspace_id)},
            max_concurrency=_MAX_CONCURRENCY,
        )
        items = [
            WorkspaceView(
                id=one.item.workspace_id,
                name=one.result,
                failure_code=None if one.error is None else batches.code_of(one.error),
                is_default=one.item.workspace_id == default,
                connections=one.item.connections,
                discoveries_at_once=self._settings.discoveries_at_once,
                discoveries_running=one.item.running,
                sources_due=one.item.due,
            )
            for one in outcomes
        ]
        return WorkspacePage(
            items=sorted(
                items, key=lambda one: (not one.is_default, (one.name or "").casefold(), one.id)
            )
        )

    async def _name(self, workspace_id: UUID) -> str:
        """The name of a workspace, as of at most `CACHED_S` ago."""
        now = self._clock()
        held = self._names.get(workspace_id)
        if held is None or now - held[0] > CACHED_S:
            held = now, (await self._airbyte.get_workspace(workspace_id)).name
            self._names[workspace_id] = held
            while len(self._names) > _MOST_NAMES:
                self._names.popitem(last=False)
        return held[1]
