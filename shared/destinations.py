"""Reads what destinations can hold, and remembers it for some minutes."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final
from uuid import UUID

from shared.airbyte_client import AirbyteClient
from shared.domain.destination import Destination
from shared.errors import UpstreamForbidden, UpstreamMissing, UpstreamRefused
from shared.observability import logs

log = logs.get(__name__)

_REMEMBERED_S: Final = 300.0
"""How long an upgrade of a destination may stay unnoticed."""
_MOST_REMEMBERED: Final = 1_000


class DestinationReader:
    """Reads destinations' connectors and versions; their configurations are not remembered."""

    def __init__(
        self, airbyte: AirbyteClient, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._airbyte = airbyte
        self._clock = clock
        self._known: OrderedDict[UUID, tuple[float, Destination]] = OrderedDict()

    async def read(self, destination_id: UUID) -> Destination:
        """What a destination can hold; an unknown one if Airbyte does not report its connector.

        Raises:
            Upstream: Airbyte is unavailable.
        """
        now = self._clock()
        known = self._known.get(destination_id)
        if known is not None and now < known[0]:
            return known[1]
        try:
            found = await self._airbyte.destination_rules(destination_id)
        except (UpstreamMissing, UpstreamForbidden, UpstreamRefused) as error:
            log.warning("destination_not_read", destination=str(destination_id), code=error.code)
            found = Destination()
        self._known[destination_id] = (now + _REMEMBERED_S, found)
        self._known.move_to_end(destination_id)
        if len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)
        return found
