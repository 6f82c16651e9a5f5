"""Requests the pages that people open, during the load, and times them."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Final
from urllib.parse import quote

import asyncpg
import msgspec

from tests.bench.environment import Http
from tests.scale.fleet import Fleet

LIST_MS: Final = 200.0
"""Budget of a list and of its counts, 95th percentile."""
REPAIR_MS: Final = 400.0
"""Budget of a repair's page: the repair, its changes and its connection, one after another."""
_PAUSE_S: Final = 0.25
_REPAIR: Final = "repair page"
_LISTS: Final = {
    "connections": "/connections?include=health",
    "connections by health": "/connections?include=health&sort=health",
    "connections with a label": "/connections?include=health&label=team%3Dteam-7",
    "connections by name": "/connections?include=health&sort=name&q=sales",
    "health summary": "/connections/summary",
    "jobs": "/jobs",
}


class Reader:
    """Opens pages in turn, a few a second, until it is cancelled."""

    def __init__(self, services: Fleet, registry_url: str) -> None:
        self._services = services
        self._registry_url = registry_url
        self.ms: dict[str, list[float]] = defaultdict(list)

    @staticmethod
    def budget(page: str) -> float:
        """The budget of a page in milliseconds."""
        return REPAIR_MS if page == _REPAIR else LIST_MS

    async def read(self) -> None:
        """Request every page again and again; lists continue where the last page ended."""
        orchestrator = await Http.to(self._services.port_of("orchestrator"))
        agent = await Http.to(self._services.port_of("drift_repair_agent"))
        sql = await asyncpg.connect(self._registry_url)
        after: dict[str, str | None] = {}
        try:
            while True:
                repair, connection = await sql.fetchrow(_SOME_REPAIR)
                for name, path in _LISTS.items():
                    after[name] = await self._page(name, orchestrator, path, after.get(name))
                await self._page("timeline", orchestrator, f"/connections/{connection}/timeline")
                after["repairs"] = await self._page(
                    "repairs", agent, "/repairs?state=proposed", after.get("repairs")
                )
                await self._page("repairs summary", agent, "/repairs/summary")
                began = time.perf_counter()
                await agent.request(f"/repairs/{repair}")
                await agent.request(f"/repairs/{repair}/changes")
                await orchestrator.request(f"/connections/{connection}")
                self.ms[_REPAIR].append((time.perf_counter() - began) * 1000)
        finally:
            orchestrator.close()
            agent.close()
            await sql.close()

    async def _page(self, name: str, http: Http, path: str, after: str | None = None) -> str | None:
        """Request one page; returns where the next one starts."""
        if after is not None:
            path += f"{'&' if '?' in path else '?'}after={quote(after)}"
        began = time.perf_counter()
        body = await http.request(path)
        self.ms[name].append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(_PAUSE_S)
        found: str | None = msgspec.json.decode(body).get("next")
        return found


_SOME_REPAIR: Final = """
    SELECT id, connection_id FROM repairs
    WHERE state = 'proposed' AND connection_id >= gen_random_uuid()
    UNION ALL SELECT id, connection_id FROM repairs WHERE state = 'proposed' LIMIT 1
"""
