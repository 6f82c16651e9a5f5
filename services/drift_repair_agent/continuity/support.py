"""Whether this Airbyte renames fields by mappers; a refusal is remembered.

Airbyte documents mappings as a paid feature, although its open server carries them out. A later
release may refuse them, so that this is asked of the installation, and not assumed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.drift_repair_agent.repairs import planned_changes as changes_of
from services.drift_repair_agent.repairs import queries, transitions
from shared.airbyte_client import AirbyteClient
from shared.domain.catalog import StreamId
from shared.errors import UpstreamForbidden, UpstreamMismatch, UpstreamRefused
from shared.models import Connection
from shared.observability import logs

log = logs.get(__name__)

_SINCE: Final = (1, 3)
"""The first version that refuses a mapper whose new name is taken."""
_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)\.")
_SUPPORTED_S: Final = 300.0
_REFUSED_S: Final = 3600.0
"""How long a refusal is remembered; an upgrade of Airbyte may stay unnoticed that long."""
_REFUSALS: Final = frozenset({UpstreamForbidden.code, UpstreamMismatch.code})
"""Codes of the failures of a heal by which Airbyte refuses mappers, or drops them silently."""


class MapperSupport:
    """Remembers, per process, whether the one Airbyte that AAM uses supports mappers."""

    def __init__(
        self, airbyte: AirbyteClient, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._airbyte = airbyte
        self._clock = clock
        self._known: tuple[float, bool] | None = None

    async def is_given(self, connection_id: UUID, stream: StreamId) -> bool:
        """Whether Airbyte accepts mappers: its version, then a validation without any mapper.

        `connection_id` is Airbyte's id, of a connection that has the stream.

        Raises:
            Upstream: Airbyte is unavailable.
        """
        if self._known is not None and self._clock() < self._known[0]:
            return self._known[1]
        is_given = await self._asked(connection_id, stream)
        self._remember(is_given=is_given)
        return is_given

    async def _asked(self, connection_id: UUID, stream: StreamId) -> bool:
        found = _VERSION.match((await self._airbyte.instance()).version)
        if found is not None and (int(found[1]), int(found[2])) < _SINCE:
            return False
        try:
            await self._airbyte.validate_mappers(connection_id, stream)
        except (UpstreamForbidden, UpstreamRefused):
            return False
        return True

    def refused(self) -> None:
        """Record that Airbyte refused or dropped a mapper: none is sent for an hour."""
        self._remember(is_given=False)
        log.warning("mappers_refused")

    def _remember(self, *, is_given: bool) -> None:
        self._known = self._clock() + (_SUPPORTED_S if is_given else _REFUSED_S), is_given

    async def on_refused(
        self, session: AsyncSession, row: Connection, repair_id: UUID, failure: Mapping[str, Any], /
    ) -> None:
        """Record the failure of a repair; one that kept a column may have failed by its mapper."""
        await transitions.mark_catalog_refused(session, row, repair_id, failure)
        repair = await queries.find_repair(session, repair_id)
        made = (item.decision for item in changes_of.read(repair.changes))
        keeps = any(one is not None and one.continuity == "keep_column" for one in made)
        if keeps and failure.get("code") in _REFUSALS:
            self.refused()
