"""Pages: what they show, with services that answer, refuse, or are away."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from local.processes import servers
from services.console.problems import ApiProblem
from tests.console.browser import Browser
from tests.console.conftest import Console
from tests.console.double import Double, json, page, problem

STATIC = Path(__file__).parents[2] / "services" / "console" / "static"
CONNECTION = {
    "id": "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f",
    "name": "Salesforce production",
    "source_type": "Salesforce",
    "status": "ACTIVE",
    "catalog_version": 3,
    "airbyte_destination_id": "9c8b7a6d-5e4f-4d3c-9b2a-1f0e9d8c7b6a",
    "failure_code": None,
    "created_at": "2026-11-28T09:42:10.123456+00:00",
    "health": {
        "health": "sync_failing",
        "code": "config_error",
        "reason": "The last sync failed: config_error.",
        "since": "2026-11-28T09:42:10.123456+00:00",
        "failed_syncs": 1,
        "last_sync_status": "failed",
        "last_sync_started_at": "2026-11-28T09:42:10.123456+00:00",
    },
}


async def test_list_of_connections(signed_in: Browser, double: Double) -> None:
    """Made from the orchestrator's answer to the person's own key."""
    double.answers["GET /connections"] = page(CONNECTION, next="cursor-2")

    shown = await signed_in.get("/connections?q=sales")

    assert shown.status == 200
    assert "Salesforce production" in shown.text
    assert "28 Nov 2026, 09:42 UTC" in shown.text
    assert 'datetime="2026-11-28T09:42:10Z"' in shown.html
    assert 'href="/connections?q=sales&amp;after=cursor-2"' in shown.html
    (asked,) = double.of("GET", "/connections")
    assert asked.query == "q=sales&sort=health&include=health&include=syncs&limit=100"
    assert asked.headers["authorization"] == f"Bearer {double.key}"


async def test_part_of_a_page_may_be_away(signed_in: Browser, double: Double) -> None:
    """A service that fails leaves out its own panel alone."""
    double.answers["GET /repairs"] = lambda _: problem(503, "unavailable", "The registry is away.")
    double.answers["GET /connections"] = page(CONNECTION)

    shown = await signed_in.get("/")

    assert shown.status == 200
    assert "Repairs: not available now. The registry is away." in shown.text
    assert "Salesforce production" in shown.text


async def test_unreachable_service(console: Console, double: Double) -> None:
    """A refused connection is known at once, and changes nothing."""
    away = f"http://127.0.0.1:{servers.free_port()}"
    browser = Browser(console(drift_repair_agent_url=away))
    await browser.sign_in(double.key)
    double.answers["GET /connections"] = page(CONNECTION)

    shown = await browser.get("/")

    assert "The drift_repair_agent cannot be reached. Nothing was changed." in shown.text
    assert "service_unreachable" in shown.text
    await browser.client.aclose()


async def test_late_read(console: Console, double: Double) -> None:
    """A service that accepts connections and does not answer is late, not unreachable."""
    async with silent_server() as silent:
        app = console(drift_repair_agent_url=silent, peer_timeout=timedelta(milliseconds=100))
        agent = app.state.clients.acting_with(double.key).drift_repair_agent

        with pytest.raises(ApiProblem) as late:
            await agent.get("/repairs")

    assert late.value.sentence == "The drift_repair_agent did not answer in time."
    assert late.value.code == "service_timeout"


async def test_lost_answer_says_what_repeating_does(console: Console, double: Double) -> None:
    """Only a request with an Idempotency-Key may be sent again without a look."""
    async with silent_server() as silent:
        app = console(orchestrator_url=silent, peer_timeout=timedelta(milliseconds=100))
        orchestrator = app.state.clients.acting_with(double.key).orchestrator

        with pytest.raises(ApiProblem) as keyed:
            await orchestrator.post("/connections/onboard", body={}, idempotency_key="k" * 20)
        with pytest.raises(ApiProblem) as unkeyed:
            await orchestrator.post("/api-keys", body={})

    unknown = "The orchestrator did not answer in time, so it is unknown whether this was done."
    again = "Sending the same form again has no further effect."
    assert keyed.value.sentence == f"{unknown} {again}"
    look = "Check whether it was done before you send the form again."
    assert unkeyed.value.sentence == f"{unknown} {look}"


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """A server that accepts connections and never answers; yields its address."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_problem_of_a_service_is_a_page(signed_in: Browser, double: Double) -> None:
    """With its sentence, code and request id, and a way to try again where that makes sense."""
    double.answers["GET /connections"] = lambda _: problem(
        503, "unavailable", "The registry is away.", headers={"Retry-After": "7"}
    )

    shown = await signed_in.get("/connections?q=a")

    assert shown.status == 503
    assert "The registry is away." in shown.text
    assert "unavailable" in shown.text
    assert "upstream-id" in shown.text
    assert 'href="/connections?q=a">Try again' in shown.html
    assert shown.response.headers["retry-after"] == "7"


async def test_problem_with_an_unregistered_status(signed_in: Browser, double: Double) -> None:
    """Proxies have their own, such as 520."""
    double.answers["GET /connections"] = lambda _: json({}, 520)

    shown = await signed_in.get("/connections")

    assert shown.status == 520
    assert "The orchestrator answered 520." in shown.text


async def test_problem_is_a_notice_in_a_fragment(signed_in: Browser, double: Double) -> None:
    """Only the notice is put in, not a page."""
    double.answers["GET /connections"] = lambda _: problem(403, "forbidden", "Not with this key.")

    shown = await signed_in.get("/connections", headers={"HX-Request": "true"})

    assert shown.status == 403
    assert "Not with this key." in shown.text
    assert "<html" not in shown.html


async def test_unknown_address(signed_in: Browser) -> None:
    """Answered with a page, like everything else."""
    shown = await signed_in.get("/nothing")

    assert shown.status == 404
    assert "There is no such page." in shown.text


def test_layers_of_the_style_sheet() -> None:
    """Braces balance, and no layer is in another, where its rules would lose to earlier ones."""
    css = re.sub(r'/\*.*?\*/|"[^"]*"', "", (STATIC / "console.css").read_text(), flags=re.DOTALL)
    depth, found = 0, []
    for word in re.findall(r"@layer [a-z]+ (?=\{)|[{}]", css):
        if word.startswith("@"):
            found.append(depth)
        depth += {"{": 1, "}": -1}.get(word, 0)
        assert depth >= 0

    assert depth == 0
    assert set(found) == {0}
