"""Whether this Airbyte renames fields by mappers; a refusal is remembered in the registry.

Airbyte documents mappings as a paid feature, although its open server carries them out. A later
release may refuse them, so that this is asked of the installation, and not assumed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final
from uuid import UUID

from services.drift_repair_agent.repairs import queries
from shared.airbyte_client import AirbyteClient
from shared.auth import label_limits
from shared.database import Database
from shared.domain.catalog import StreamId
from shared.errors import UpstreamForbidden, UpstreamMismatch, UpstreamRefused

_SINCE: Final = (1, 3)
"""The first version that refuses a mapper whose new name is taken."""
_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)\.")
_ANSWERED_S: Final = 300.0
"""How long a process remembers what Airbyte answered about mappers."""
_REFUSED_FOR: Final = timedelta(hours=1)
"""How long a refused heal counts; an upgrade of Airbyte may stay unnoticed that long."""
_REFUSALS: Final = frozenset({UpstreamForbidden.code, UpstreamMismatch.code})
"""Codes of the failures of a heal by which Airbyte refuses mappers, or drops them silently."""


class MapperSupport:
    """Finds out whether the one Airbyte that AAM uses supports mappers.

    A heal that Airbyte refused because of a mapper counts for all replicas, and after a restart:
    it is read from the repairs.
    """

    def __init__(
        self,
        db: Database,
        airbyte: AirbyteClient,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._airbyte = airbyte
        self._clock = clock
        self._answered: tuple[float, bool] | None = None

    async def is_given(self, connection_id: UUID, stream: StreamId) -> bool:
        """Whether Airbyte accepts mappers: no heal was refused, its version, an empty validation.

        `connection_id` is Airbyte's id, of a connection that has the stream.

        Raises:
            Unavailable: the registry is unavailable.
            Upstream: Airbyte is unavailable.
        """
        # A heal of another team's connection counts, too.
        with label_limits.registry_wide():
            async with self._db.read() as session:
                if await queries.was_column_refused(session, _REFUSALS, within=_REFUSED_FOR):
                    return False
        if self._answered is not None and self._clock() < self._answered[0]:
            return self._answered[1]
        is_given = await self._asked(connection_id, stream)
        self._answered = self._clock() + _ANSWERED_S, is_given
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
