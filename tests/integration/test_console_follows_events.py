"""The console follows the events of a real orchestrator with its own service token."""

from __future__ import annotations

from typing import Any

import orjson

from services.console.api import SERVICES, Clients
from services.console.live_feed import LiveFeed
from services.console.settings import ConsoleSettings
from tests import access
from tests.integration.conftest import Mesh, serving
from tests.waiting import until


async def test_console_gets_events_of_the_orchestrator(mesh: Mesh) -> None:
    """From the moment a page is open, by ids and codes."""
    app = mesh.orchestrator._transport.app  # type: ignore[attr-defined]
    async with serving(app, lifespan="off") as url:
        addresses: dict[str, Any] = {f"{name}_url": url for name in SERVICES}
        settings = ConsoleSettings(_env_file=None, console_session_keys="a" * 32, **addresses)
        clients = Clients(settings)
        feed = LiveFeed(clients, access.signer("console"))
        async with feed.running():
            await until(lambda: feed._end)
            subscription = feed.subscribe(None)

            connection = await mesh.onboard()

            found: list[dict[str, Any]] = []
            while "connection.onboarded" not in [event["type"] for event in found]:
                messages = await subscription.items(within_s=20)
                assert messages
                found += [orjson.loads(one.data) for one in messages if not one.kind]
            assert {event["connection_id"] for event in found} == {connection["id"]}
            feed.unsubscribe(subscription)
        await clients.close()
