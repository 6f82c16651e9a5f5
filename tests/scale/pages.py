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
_PAUSE_S: Final = 0.1
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
        """How long each opening of a page took."""
        self.failures: list[str] = []

    @staticmethod
    def budget(page: str) -> float:
        """The budget of a page in milliseconds."""
        return REPAIR_MS if page == _REPAIR else LIST_MS

    async def read(self) -> None:
        """Request every page again and again; lists continue where the last page ended."""
        sql = await asyncpg.connect(self._registry_url)
        after: dict[str, str | None] = {}
        try:
            while True:
                some = await sql.fetchrow(_SOME_REPAIR)
                assert some is not None, "no repair is open"
                repair, connection = some
                paths = {
                    **{name: ("orchestrator", path) for name, path in _LISTS.items()},
                    "timeline": ("orchestrator", f"/connections/{connection}/timeline"),
                    "repairs": ("drift_repair_agent", "/repairs?state=proposed"),
                    "repairs summary": ("drift_repair_agent", "/repairs/summary"),
                }
                for name, (service, path) in paths.items():
                    if start := after.get(name):
                        path += f"{'&' if '?' in path else '?'}after={quote(start)}"  # noqa: PLW2901
                    body = await self._open(name, (service, path))
                    if name in _LISTS or name == "repairs":
                        after[name] = msgspec.json.decode(body or b"{}").get("next")
                await self._open(
                    _REPAIR,
                    ("drift_repair_agent", f"/repairs/{repair}"),
                    ("drift_repair_agent", f"/repairs/{repair}/changes"),
                    ("orchestrator", f"/connections/{connection}"),
                )
        finally:
            await sql.close()

    async def _open(self, page: str, *calls: tuple[str, str]) -> bytes:
        """Make a page's calls, each to a service; returns the last body, empty if one fails."""
        https = {name: await Http.to(self._services.port_of(name)) for name, _ in calls}
        began, body = time.perf_counter(), b""
        try:
            for name, path in calls:
                body = await https[name].request(path)
        except (AssertionError, TimeoutError) as error:
            self.failures.append(str(error) or f"{page}: no response within 30 s")
            return b""
        finally:
            for http in https.values():
                http.close()
        self.ms[page].append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(_PAUSE_S)
        return body


_SOME_REPAIR: Final = """
    SELECT id, connection_id FROM repairs
    WHERE state = 'proposed' AND connection_id >= gen_random_uuid()
    UNION ALL SELECT id, connection_id FROM repairs WHERE state = 'proposed' LIMIT 1
"""
