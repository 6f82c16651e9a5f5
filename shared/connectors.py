"""Reads the versions of the connectors that sources run, and records them in the registry."""

from __future__ import annotations

import asyncio
import random
from uuid import UUID

from msgspec.structs import replace

from shared import registry
from shared.airbyte_client import AirbyteClient
from shared.config import Settings
from shared.database import Database
from shared.domain.connector_versions import ConnectorVersion
from shared.errors import Upstream, UpstreamTimeout
from shared.observability import logs

log = logs.get(__name__)

_JITTER = 0.1
_TRY_WITHIN_S = 10.0
"""The longest wait for a version when other work waits for it."""


class Connectors:
    """Reads versions from Airbyte, and records each one in the registry."""

    def __init__(self, settings: Settings, db: Database, airbyte: AirbyteClient) -> None:
        self._every = settings.connector_check_interval
        self._try_within_s = min(settings.airbyte_timeout.total_seconds(), _TRY_WITHIN_S)
        self._db = db
        self._airbyte = airbyte

    async def read(self, source_id: UUID) -> ConnectorVersion:
        """Read the version of a source's connector: one call, or three if it has a manifest.

        Raises:
            Upstream: Airbyte did not return it.
        """
        found = await self._airbyte.connector_version(source_id)
        if found.is_declarative:
            manifest = await self._airbyte.manifest_version(source_id)
            found = replace(found, manifest=manifest)
        spread = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
        async with self._db.transaction() as session:
            await registry.record_connector(
                session, source_id, found, check_again_after=self._every * spread
            )
        return found

    async def try_read(self, source_id: UUID) -> ConnectorVersion | None:
        """Do the same within seconds; None, and a log line, if Airbyte did not return it."""
        try:
            async with asyncio.timeout(self._try_within_s):
                return await self.read(source_id)
        except Upstream as error:
            code = error.code
        except TimeoutError:
            code = UpstreamTimeout.code
        log.warning("connector_not_read", source=str(source_id), code=code)
        return None
