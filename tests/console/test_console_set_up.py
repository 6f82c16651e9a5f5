"""Operations, drifts, observations, notifications, access, knowledge and the system."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest

from services.console import text
from tests.console import samples
from tests.console.browser import Browser
from tests.console.double import Double, page, problem
from tests.console.test_console_security import HOSTILE, injected

OPERATION = f"/operations/{samples.OPERATION_ID}"
DRIFT = f"/drifts/{samples.DRIFT['id']}"
WEBHOOK = f"/notifications/{samples.WEBHOOK_ID}"
PAGES = [
    "/onboard",
    f"/onboard/{samples.SOURCE_TYPE['id']}",
    "/import",
    f"/import/{samples.OPERATION_ID}",
    "/operations",
    OPERATION,
    "/drifts",
    DRIFT,
    "/observations",
    "/notifications",
    WEBHOOK,
    "/access",
    "/access/credentials",
    "/access/reads",
    "/access/refusals",
    "/knowledge",
    "/system",
]
LISTS = {
    "/onboard": ("GET /source-types", "No source types"),
    "/operations": ("GET /operations", "No operations"),
    "/drifts": ("GET /drifts", "No drifts"),
    "/observations": ("GET /observations", "Nothing is observed yet"),
    "/notifications": ("GET /webhooks", "No webhooks yet"),
    "/access": ("GET /api-keys", "No keys"),
    "/access/credentials": ("GET /credentials", "No credentials"),
    "/access/reads": ("GET /credential-reads", "No reads"),
    "/access/refusals": ("GET /refusals", "No refusals"),
    "/knowledge": ("GET /knowledge", "Nothing learned yet"),
}


@pytest.fixture(autouse=True)
def answering(double: Double) -> None:
    """Give the double an answer to everything."""
    double.answers = samples.answers()


@pytest.mark.parametrize("path", PAGES)
async def test_page(signed_in: Browser, path: str) -> None:
    """One heading, one filled button at most, a label for each field, no id twice."""
    shown = await signed_in.get(path)

    assert shown.status == 200
    assert len(re.findall(r"<h1\b", shown.html)) == 1
    assert len(re.findall(r'class="button primary"', shown.html)) <= 1
    ids = re.findall(r'\sid="([^"]+)"', shown.html)
    assert len(ids) == len(set(ids))
    named = re.findall(r'(?:for|aria-describedby|aria-labelledby)="([^"]+)"', shown.html)
    assert {one for each in named for one in each.split()} <= set(ids)


@pytest.mark.parametrize("path", LISTS)
async def test_list_is_empty_or_away(signed_in: Browser, double: Double, path: str) -> None:
    """Each state has its words, and the page is still there."""
    route, words = LISTS[path]
    double.answers[route] = samples.listed()
    assert words in (await signed_in.get(path)).text

    double.answers[route] = lambda _: problem(503, "unavailable", "The registry is away.")
    shown = await signed_in.get(path)
    assert shown.status == 200
    assert "The registry is away." in shown.text


@pytest.mark.parametrize("path", LISTS)
async def test_list_is_paged(signed_in: Browser, double: Double, path: str) -> None:
    """By the cursor of the answer; at most a hundred rows at a time."""
    route, _ = LISTS[path]
    double.answers[route] |= {"next": "cursor-2"}
    shown = await signed_in.get(path)

    assert "after=cursor-2" in shown.html
    limits = [one.query for one in double.asked if f"{one.method} {one.path}" == route]
    assert all(int(found) <= 100 for found in re.findall(r"limit=(\d+)", limits[-1]))


@pytest.mark.deep(after=3)
@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_names_everywhere(signed_in: Browser, double: Double, name: str) -> None:
    """Whatever a source, a connector or a person calls things."""
    kept = re.compile(
        r"id$|_at$|deadline|^at$|status|state|^next$|outcome|kind|severity|verdict|since|url|^type$"
    )

    def spoilt(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {one: spoilt(inner, one) for one, inner in value.items()}
        if isinstance(value, list):
            return [spoilt(one, key) for one in value]
        return name if isinstance(value, str) and not kept.search(key) else value

    schema = samples.POSTGRES | {
        "properties": {name: {"title": name, "description": name, "type": "string"}}
    }
    spoilt_answers = {route: spoilt(answer) for route, answer in samples.answers().items()}
    specification = f"GET /source-types/{samples.SOURCE_TYPE['id']}/specification"
    spoilt_answers[specification] |= {"specification": schema}
    double.answers = spoilt_answers
    for path in PAGES:
        shown = await signed_in.get(path)

        assert shown.status == 200, (path, shown.text[-300:])
        assert not injected(shown.html), path
        hidden = [one for one in unescape(shown.text) if text._is_hidden(one)]
        assert not hidden, path


async def test_running_operation(signed_in: Browser, double: Double) -> None:
    """With its steps and what it waits for; polled until it has ended."""
    shown = await signed_in.get(OPERATION)

    assert "Create the source Discover its schema Create the connection" in shown.text
    assert "It waits because of upstream_timeout" in shown.text
    assert 'hx-get="" hx-trigger="every 3s"' in shown.html
    double.answers[f"GET {OPERATION}"] = samples.FAILED
    part = await signed_in.get(OPERATION, headers={"HX-Request": "true"})
    assert "<html" not in part.html
    assert "hx-trigger" not in part.html
    assert "The connector could not list the source's schema." in unescape(part.text)
    assert "The database refuses the password." in part.text


async def test_operation_of_the_reconciler(signed_in: Browser, double: Double) -> None:
    """A catalog that was changed in Airbyte and is sent again, unlike one that a repair sends."""
    made = samples.OPERATION | {"kind": "reapply", "requested_by": None}
    double.answers["GET /operations"] = samples.listed(made)
    shown = await signed_in.get("/operations")
    assert "Send the catalog again" in shown.text
    assert "AAM itself" in shown.text

    double.answers["GET /operations"] = samples.listed(made | {"kind": "apply"})
    shown = await signed_in.get("/operations")
    assert "A repair" in shown.text
    assert "AAM itself" not in shown.text


async def test_filters_are_in_the_address(signed_in: Browser, double: Double) -> None:
    """And are passed on to the services."""
    await signed_in.get(f"/operations?status=failed&connection_id={samples.ID}")
    assert f"status=failed&connection_id={samples.ID}" in double.of("GET", "/operations")[0].query
    await signed_in.get("/drifts?open=true")
    assert "open=true" in double.of("GET", "/drifts")[0].query
    await signed_in.get("/observations?show=suspicious")
    assert "suspicious=true" in double.of("GET", "/observations")[0].query
    await signed_in.get("/knowledge?source_type=Salesforce")
    assert "source_type=Salesforce" in double.of("GET", "/knowledge")[0].query
    shown = await signed_in.get("/drifts?severity=awful")
    assert shown.status == 422


async def test_drift(signed_in: Browser, double: Double) -> None:
    """Each change with its reason and what would be lost; the repair is one click away."""
    shown = await signed_in.get(DRIFT)

    assert "'Region__c' is gone from 'Account'." in unescape(shown.text)
    assert "Loses Region__c" in shown.text
    assert "Guide for 3.0.0" in shown.text
    assert f'href="/repairs/{samples.ID}">Review the repair' in shown.html
    many = [samples.CHANGE | {"path": [f"f{index}"]} for index in range(150)]
    double.answers[f"GET {DRIFT}"] = {**samples.DRIFT, "changes": many, "change_count": 150}
    shown = await signed_in.get(DRIFT)
    assert shown.html.count('<article class="change">') == 100
    assert 'href="' + DRIFT + '?start=100"' in shown.html
    double.answers["GET /repairs"] = lambda _: problem(503, "unavailable", "Away.")
    assert "Its repair: not available now." in (await signed_in.get(DRIFT)).text


async def test_observe_now(signed_in: Browser, double: Double) -> None:
    """The first connection's source; the page says what happens."""
    shown = await signed_in.get("/observations")
    assert "Suspicious" in shown.text
    answer = await signed_in.post("/observations", {"connection_id": samples.ID})

    assert answer.location == f"/observations?observed={samples.ID}"
    assert len(double.of("POST", f"/connections/{samples.ID}/observe")) == 1


async def test_webhook_from_start_to_end(signed_in: Browser, double: Double) -> None:
    """Created with its secret shown once, tested, rotated, its message sent again, deleted."""
    await signed_in.get("/notifications")
    shown = await signed_in.post(
        "/notifications", {"url": "https://a.example/x", "event": ["repair.proposed"]}
    )
    assert (shown.status, "whsec_c2VjcmV0" in shown.text) == (201, True)
    assert double.of("POST", "/webhooks")[0].json == {
        "url": "https://a.example/x",
        "events": ["repair.proposed"],
    }

    shown = await signed_in.get(WEBHOOK)
    assert "whsec" not in shown.html
    assert "Given up" in shown.text
    assert "The test message was delivered" in (await signed_in.post(f"{WEBHOOK}/test")).text
    assert "whsec_bmV3" in (await signed_in.post(f"{WEBHOOK}/rotate")).text
    retry = f"{WEBHOOK}/deliveries/{samples.DELIVERY_ID}/retry"
    assert (await signed_in.post(retry)).location == f"{WEBHOOK}?retried=true"
    answer = await signed_in.post(f"{WEBHOOK}/delete")
    assert answer.location == "/notifications?deleted=true"
    assert len(double.of("DELETE", f"/webhooks/{samples.WEBHOOK_ID}")) == 1


async def test_webhook_is_refused(signed_in: Browser, double: Double) -> None:
    """What was typed is shown again with the reason."""
    double.answers["POST /webhooks"] = lambda _: problem(422, "invalid", "url: must be https.")
    await signed_in.get("/notifications")
    shown = await signed_in.post(
        "/notifications", {"url": "http://a.example", "event": "mapper.lapsed"}
    )

    assert shown.status == 422
    assert "url: must be https." in shown.text
    assert 'value="http://a.example"' in shown.html
    assert 'value="mapper.lapsed" checked' in shown.html
    shown = await signed_in.post("/notifications", {"url": "https://a.example"})
    assert "Choose at least one event." in shown.text


async def test_messages_need_a_scope(signed_in: Browser, double: Double) -> None:
    """The rest of the webhook's page is there."""
    double.answers[f"GET /webhooks/{samples.WEBHOOK_ID}/deliveries"] = lambda _: problem(
        403, "forbidden", "This needs connections:write."
    )
    shown = await signed_in.get(WEBHOOK)
    assert shown.status == 200
    assert "Reading them needs connections:write" in shown.text


async def test_own_key_is_named_before_it_is_revoked(signed_in: Browser, double: Double) -> None:
    """Revoking it ends the session; other keys have no such sentence."""
    assert "your own key" not in (await signed_in.get("/access")).text

    double.answers["GET /api-keys"] = page(samples.KEY | {"id": "test0001"})
    assert "and this is your own key" in (await signed_in.get("/access")).text


async def test_key_is_shown_once(signed_in: Browser, double: Double) -> None:
    """And revoked by its id."""
    await signed_in.get("/access")
    shown = await signed_in.post(
        "/access/keys",
        {
            "owner": "bot",
            "scope": ["connections:read"],
            "days": "30",
            "labels": "team=sales tier=1",
        },
    )
    assert (shown.status, "aam_test_ab12cd34_shown-once" in shown.text) == (201, True)
    body = double.of("POST", "/api-keys")[0].json
    assert (body["owner"], body["scopes"]) == ("bot", ["connections:read"])
    assert body["expires_at"].endswith("+00:00")
    assert body["labels"] == {"team": "sales", "tier": "1"}
    assert "shown-once" not in (await signed_in.get("/access")).html
    answer = await signed_in.post("/access/keys/ab12cd34/revoke")
    assert answer.location == "/access?revoked_key=ab12cd34"
    shown = await signed_in.post("/access/keys", {"owner": "bot"})
    assert (shown.status, "Choose at least one scope." in shown.text) == (422, True)


async def test_key_has_one_value_of_each_label(signed_in: Browser, double: Double) -> None:
    """The last value would silently win."""
    await signed_in.get("/access")
    form = {"owner": "bot", "scope": ["connections:read"], "days": "30"}
    shown = await signed_in.post("/access/keys", form | {"labels": "team=sales team=support"})
    assert (shown.status, "Give each label one value" in shown.text) == (422, True)
    assert 'value="team=sales team=support"' in shown.html
    assert not double.of("POST", "/api-keys")


async def test_access_without_admin(signed_in: Browser, double: Double) -> None:
    """Says what is needed, and shows what may be seen."""
    double.scopes = ("connections:read",)
    await signed_in.post("/logout")
    await signed_in.sign_in(double.key)
    refused = lambda _: problem(403, "forbidden", "This needs admin.")  # noqa: E731
    double.answers |= {
        "GET /api-keys": refused,
        "GET /credential-reads": refused,
        "GET /refusals": refused,
    }

    assert "Your key needs admin" in (await signed_in.get("/access")).text
    assert "Your key needs admin" in (await signed_in.get("/access/reads")).text
    assert "Your key needs admin" in (await signed_in.get("/access/refusals")).text
    shown = await signed_in.get("/access/credentials")
    assert "vault:postgres-planning" in shown.text
    assert "It needs admin" in shown.text


async def test_rotation(signed_in: Browser) -> None:
    """Shows the connections that do not have the credential yet."""
    await signed_in.get("/access/credentials")
    shown = await signed_in.post(
        "/access/credentials/rotate", {"credential_id": "vault:postgres-planning"}
    )
    assert "0 of 1 sources have the current values" in shown.text
    assert "Planning : check failed" in shown.text


async def test_system_with_a_service_away(signed_in: Browser, double: Double) -> None:
    """What a service that is not ready says about itself is shown."""
    assert "All services are ready" in (await signed_in.get("/system")).text
    double.answers["GET /ready"] = lambda _: problem(
        503, "", "", ready=False, checks={"registry": "no response within 1 s"}
    )
    double.answers["GET /about"] = lambda _: problem(503, "unavailable", "Away.")
    shown = await signed_in.get("/system")

    assert shown.status == 200
    assert "Something needs attention." in shown.text
    assert "registry : no response within 1 s" in shown.text
    assert "Halden Freight" in shown.text
