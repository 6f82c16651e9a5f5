"""`/api/...`: which routes are passed on, with which headers, and what comes back."""

from __future__ import annotations

import httpx
import orjson
import pytest
from fastapi import FastAPI
from starlette.responses import Response

from services.console.api import SERVICES
from services.console.proxy import ROUTES_FILE, RouteTable, WrongMethod
from shared.errors import NotFound
from tests.console.browser import Browser
from tests.console.conftest import Console
from tests.console.double import Double, page, problem
from tests.docs import console_routes

ID = "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f"


def test_table_is_that_of_the_services() -> None:
    """`make docs` writes it from their OpenAPI descriptions."""
    assert ROUTES_FILE.read_text() == console_routes.write()


def test_table_has_no_route_of_the_auth_broker() -> None:
    """Nor those that each service has for itself."""
    table = RouteTable.installed()
    assert {one.service for one in table.targets} <= set(SERVICES)
    assert not {one.template for one in table.targets} & {"/health", "/ready", "/openapi.json"}


def test_literal_wins_over_parameter() -> None:
    """Whatever the order of the lines."""
    table = RouteTable("orchestrator GET /a/{id}\nrag_engine GET /a/b\nrag_engine PUT /a/{id}/c\n")

    assert table.find("GET", "/a/b") == "rag_engine"
    assert table.find("GET", "/a/c") == "orchestrator"
    assert table.find("GET", "/a/b%2Fc") == "orchestrator"
    for path in ("/a", "/a/", "/a/b/c/d", "/a/..", "/a/%2e%2E", "/a/./b", "//a/b", "/A/b"):
        with pytest.raises(NotFound):
            table.find("GET", path)
    with pytest.raises(WrongMethod, match="PUT"):
        table.find("POST", "/a/b/c")


async def test_request_is_passed_on(browser: Browser, double: Double) -> None:
    """With the caller's own key, and the answer comes back as it is."""
    double.answers["POST /connections/onboard"] = lambda _: Response(
        b'{"a": 1}\n',
        201,
        media_type="application/json",
        headers={"Set-Cookie": "a=b", "ETag": "x"},
    )
    answer = await browser.client.post(
        "/api/connections/onboard?wait=5",
        content=b'{"name":  "x"}',
        headers={
            "Authorization": f"Bearer {double.key}",
            "Content-Type": "application/json",
            "Idempotency-Key": "k" * 20,
            "X-Request-ID": "mine",
            "Cookie": "aam-local=1.AAAA",
            "X-Other": "x",
        },
    )

    assert (answer.status_code, answer.content) == (201, b'{"a": 1}\n')
    assert answer.headers["etag"] == "x"
    assert "set-cookie" not in answer.headers
    (asked,) = double.asked
    assert (asked.query, asked.body) == ("wait=5", b'{"name":  "x"}')
    assert asked.headers["idempotency-key"] == "k" * 20
    assert asked.headers["x-request-id"] == answer.headers["x-request-id"] == "mine"
    assert not asked.headers.keys() & {"cookie", "x-other"}


async def test_session_is_no_credential(signed_in: Browser, double: Double) -> None:
    """A page of another site cannot use the API through a person's browser."""
    double.answers["GET /connections"] = page()
    answer = await signed_in.client.get("/api/connections")

    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthenticated"
    (asked,) = double.of("GET", "/connections")
    assert "authorization" not in asked.headers


async def test_problem_comes_back(browser: Browser, double: Double) -> None:
    """With its status, code and Retry-After."""
    double.answers[f"GET /connections/{ID}"] = lambda _: problem(
        503, "unavailable", "The registry is away.", headers={"Retry-After": "3"}
    )
    answer = await browser.client.get(
        f"/api/connections/{ID}", headers={"Authorization": f"Bearer {double.key}"}
    )

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "3"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "unavailable"


@pytest.mark.parametrize(
    "method, path, code",
    [
        ("GET", "/nothing", "no_such_route"),
        ("GET", "/credentials/x/document", "no_such_route"),
        ("GET", "/connections/../health", "no_such_route"),
        ("PUT", "/connections", "method_not_allowed"),
        ("OPTIONS", "/connections", "method_not_allowed"),
    ],
)
async def test_other_routes_are_refused(
    app: FastAPI, double: Double, method: str, path: str, code: str
) -> None:
    """As problem+json, and no service is asked."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.request(method, f"/api{path.replace('..', '%2e%2e')}")

    assert answer.status_code in (404, 405)
    assert orjson.loads(answer.content)["code"] == code
    assert double.asked == []


async def test_guessing_through_it_is_throttled(double: Double, console: Console) -> None:
    """By the caller's address, before anything is passed on."""
    browser = Browser(console(failed_keys_per_minute=2))
    statuses = [
        (
            await browser.client.get(
                "/api/connections", headers={"Authorization": f"Bearer aam_x_{at}"}
            )
        ).status_code
        for at in range(4)
    ]

    assert statuses == [401, 401, 429, 429]
    await browser.client.aclose()


async def test_requests_without_a_credential_are_no_guesses(
    double: Double, console: Console
) -> None:
    """Any site can make a browser send them, and would otherwise lock a person out."""
    double.answers["GET /connections"] = page()
    browser = Browser(console(failed_keys_per_minute=2))

    foreign = [(await browser.client.get("/api/connections")).status_code for _ in range(4)]

    assert foreign == [401] * 4
    assert (await browser.sign_in(double.key)).status == 303
    await browser.client.aclose()


async def test_head_is_passed_on_as_head(browser: Browser, double: Double) -> None:
    """A service must not start what a GET would."""
    key = {"Authorization": f"Bearer {double.key}"}
    double.answers["HEAD /connections"] = page()
    answer = await browser.client.head("/api/connections", headers=key)

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "application/json"
    assert [one.method for one in double.asked] == ["HEAD"]


async def test_services_learn_the_callers_address(signed_in: Browser, double: Double) -> None:
    """From signing in, pages and the API, so that one caller does not use up everybody's limit."""
    double.answers["GET /connections"] = page()
    await signed_in.get("/connections")
    await signed_in.client.get("/api/connections")

    assert {one.headers.get("x-forwarded-for") for one in double.asked} == {"127.0.0.1"}


async def test_service_away(console: Console) -> None:
    """Nothing was sent, which the code says."""
    browser = Browser(console(orchestrator_url="http://127.0.0.1:1"))
    answer = await browser.client.get("/api/connections")

    assert (answer.status_code, answer.json()["code"]) == (503, "upstream_unreachable")
    await browser.client.aclose()


async def test_body_arrives_in_parts(browser: Browser, double: Double) -> None:
    """A catalog is not held as a whole."""
    body = orjson.dumps({"catalog": "x" * 300_000})

    double.answers["POST /suggest"] = lambda _: Response(body, media_type="application/json")
    answer = await browser.client.post(
        "/api/suggest", content=body, headers={"Authorization": f"Bearer {double.key}"}
    )

    assert answer.content == body + b"\n"
    (asked,) = double.asked
    assert asked.body == body
