"""Only what carries Airbyte's signature is a definite answer; everything else is unknown.

The error bodies are recorded, or reported by users of the releases they name; the comments cite
repository and issue.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from shared.airbyte_client import AirbyteClient, Credentials, NewConnection
from shared.errors import (
    AamError,
    Invalid,
    UpstreamConflict,
    UpstreamDenied,
    UpstreamForbidden,
    UpstreamMissing,
    UpstreamNotAirbyte,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnknown,
)
from tests.fakes.airbyte_server import GATEWAYS, WORKSPACE_ID, AirbyteServer

pytestmark = pytest.mark.exact

Json = dict[str, Any]
WORKSPACE = UUID(WORKSPACE_ID)
PATH = "sources/update"


def known(message: str, name: str = "KnownException", *, stack: bool = True) -> Json:
    """An error of Airbyte up to 1.8."""
    body: Json = {
        "message": message,
        "exceptionClassName": f"io.airbyte.commons.server.errors.{name}",
    }
    return body | ({"exceptionStack": []} if stack else {})


def micronaut(message: str, detail: str, href: str, *, as_list: bool = False) -> Json:
    """An error of Airbyte's web framework."""
    link = {"href": href, "templated": False}
    return {
        "message": message,
        "_links": {"self": [link] if as_list else link},
        "_embedded": {"errors": [{"message": detail, "_links": {}, "_embedded": {}}]},
    }


def problem(status: int, kind: str, title: str, detail: str = "…", **more: Any) -> Json:
    """An error as RFC 9457 has it."""
    return {"status": status, "type": kind, "title": title, "detail": detail, **more}


REFERENCE = "https://reference.airbyte.com/reference/errors"
NGINX_405 = (
    "<html>\r\n<head><title>405 Not Allowed</title></head>\r\n<body>\r\n<center><h1>405 Not Allowed"
    "</h1></center>\r\n<hr><center>nginx/1.25.3</center>\r\n</body>\r\n</html>\r\n"
)

RECORDED: dict[str, tuple[int, Any, type[AamError]]] = {
    # airbyte#28616, 0.50
    "404 of an unknown definition": (
        404,
        known(
            "Internal Server Error: Could not find configuration for STANDARD_SOURCE_DEFINITION: "
            "18ab0164-1999-4334-8834-d4020266d071.",
            "IdNotFoundKnownException",
        ),
        UpstreamMissing,
    ),
    "404 of 2.x": (404, {"errorId": str(uuid4())}, UpstreamMissing),
    "404 problem": (
        404,
        problem(404, f"{REFERENCE}#resource-not-found", "resource-not-found"),
        UpstreamMissing,
    ),
    "404 problem of billing": (
        404,
        problem(404, "error:billing/no-active-subscription", "No subscription."),
        UpstreamMissing,
    ),
    # terraform-provider-airbyte#113, the gateway of Airbyte Cloud
    "404 of a gateway": (
        404,
        {"message": "The current request is not defined by this API.", "code": 404},
        UpstreamNotAirbyte,
    ),
    # terraform-provider-airbyte#113, airbyte#30021: the public API's server
    "404 of the public API": (404, {"type": "about:blank", "status": 404}, UpstreamNotAirbyte),
    "404 without an endpoint": (
        404,
        micronaut("Not Found", "Page Not Found", f"/api/v1/{PATH}"),
        UpstreamRefused,
    ),
    "404 without an endpoint, links as a list": (
        404,
        micronaut("Not Found", "Page Not Found", f"/api/v1/{PATH}", as_list=True),
        UpstreamRefused,
    ),
    # airbyte#35357, 0.50.46: the web app's nginx, where the API's base path should be
    "405 of nginx": (405, NGINX_405, UpstreamNotAirbyte),
    "405 of the framework": (
        405,
        micronaut("Method Not Allowed", "Method [POST] not allowed", f"/api/v1/{PATH}"),
        UpstreamRefused,
    ),
    # terraform-provider-airbyte#89, 0.57
    "400 problem": (
        400,
        problem(
            400,
            REFERENCE,
            "bad-request",
            "The body of the request contains an invalid connection configuration. Primary key for "
            "stream: Account is already pre-defined.",
        ),
        UpstreamRefused,
    ),
    "400 of bean validation": (
        400,
        {
            "message": "Some properties contained invalid input.",
            "exceptionStack": [],
            "validationErrors": [{"propertyPath": "getSource.body", "message": "must not be null"}],
        },
        UpstreamRefused,
    ),
    # airbyte#65592, 1.8.0
    "400 of the framework": (
        400,
        micronaut("Bad Request", "Invalid client id or token", "/api/public/v1/applications/token"),
        UpstreamRefused,
    ),
    # airbyte#65595, 1.8
    "401 of the framework": (
        401,
        micronaut("Bad Request", "Invalid client id or token", "/api/v1/applications/token"),
        UpstreamDenied,
    ),
    "401 of 2.x": (401, {"errorId": str(uuid4())}, UpstreamDenied),
    "401 without a body": (401, b"", UpstreamDenied),
    # OpenMetadata#18816, 1.0
    "403 of the framework": (
        403,
        micronaut("Forbidden", "Forbidden", "/api/v1/workspaces/list"),
        UpstreamForbidden,
    ),
    "403 problem": (
        403,
        problem(403, f"{REFERENCE}#forbidden", "forbidden", data={"message": "…"}),
        UpstreamForbidden,
    ),
    # airbyte#29740, 0.50.13: status 408 around a body that says 500
    "408 problem": (408, problem(500, REFERENCE, "unexpected-problem"), UpstreamTimeout),
    "408 of the framework": (
        408,
        micronaut("Request Timeout", "Request timed out", f"/api/v1/{PATH}"),
        UpstreamTimeout,
    ),
    # airbyte#25920, 0.42.0
    "409 with a stack": (
        409,
        known("A sync is already running for: …", "ValueConflictKnownException"),
        UpstreamConflict,
    ),
    # constructorfabric/insight#1923, 1.8
    "409 without a stack": (
        409,
        known("A sync is already running for: …", "ValueConflictKnownException", stack=False),
        UpstreamConflict,
    ),
    "409 of 2.x": (409, {"message": "…", "errorId": str(uuid4())}, UpstreamConflict),
    "409 problem": (
        409,
        problem(409, f"{REFERENCE}#try-again-later", "try-again-later"),
        UpstreamConflict,
    ),
    "409 of a locked connection": (
        409,
        problem(409, "error:connection/locked", "Connection is locked"),
        UpstreamRefused,
    ),
    # airbyte#4564, 0.60.1
    "413 of the framework": (
        413,
        micronaut(
            "Request Entity Too Large",
            "The content length [10546869] exceeds the maximum allowed content length [10485760]",
            "/api/v1/sources/write_discover_catalog_result",
        ),
        Invalid,
    ),
    "422": (422, known("The provided configuration does not fulfill …"), UpstreamRefused),
    "423": (423, known("…", "SyncIsRunningException"), UpstreamConflict),
    # airbyte#30577, 0.50: an inactive connection
    "500": (
        500,
        {
            "message": "Internal Server Error: Can only sync an active connection",
            "exceptionClassName": "java.lang.IllegalStateException",
            "exceptionStack": [],
        },
        UpstreamUnknown,
    ),
    # airbyte#55895, 1.5
    "500 problem": (
        500,
        problem(500, REFERENCE, "unexpected-problem", documentationUrl=None, data={"message": "…"}),
        UpstreamUnknown,
    ),
    "501 problem": (
        501,
        problem(501, "error:implementation/not-implemented-in-oss", "Not implemented"),
        UpstreamRefused,
    ),
    # airbyte#59205, 1.6
    "502 of nginx": (
        502,
        "<html><head><title>502 Bad Gateway</title></head></html>",
        UpstreamUnknown,
    ),
}
UNSUPPORTED = {
    "404 without an endpoint",
    "404 without an endpoint, links as a list",
    "405 of the framework",
    "501 problem",
}


@pytest.fixture
async def airbyte() -> AsyncIterator[AirbyteServer]:
    """An Airbyte without a login."""
    async with AirbyteServer() as server:
        yield server


@pytest.fixture
async def client(airbyte: AirbyteServer) -> AsyncIterator[AirbyteClient]:
    """Its client."""
    async with AirbyteClient(airbyte.url, timeout=5) as client:
        yield client


async def failure_of(client: AirbyteClient) -> AamError:
    """What a call that is sent once ends with."""
    with pytest.raises(AamError) as caught:
        await client.update_source(uuid4(), {}, name="crm")
    return caught.value


@pytest.mark.parametrize("name", RECORDED)
async def test_recorded_airbyte_errors_have_their_class(
    airbyte: AirbyteServer, client: AirbyteClient, name: str
) -> None:
    """A missing endpoint is never a missing object."""
    status, body, expected = RECORDED[name]
    airbyte.answer(PATH, body, status=status, times=None, effect=False)

    failure = await failure_of(client)

    assert type(failure) is expected
    assert (failure.code == "upstream_unsupported") is (name in UNSUPPORTED)


# An empty 401 is what Airbyte's own login answers.
CLAIMS = [
    (gateway, status)
    for gateway in GATEWAYS
    for status in (400, 401, 403, 404, 405, 409, 410, 413, 422, 423, 451)
    if (gateway, status) != ("envoy", 401)
]


@pytest.mark.parametrize("gateway,status", CLAIMS)
async def test_gateway_error_is_not_airbytes(
    airbyte: AirbyteServer, gateway: str, status: int
) -> None:
    """Whatever its status: nothing is missing, refused, running or too large."""
    async with AirbyteClient(airbyte.url, Credentials.bearer("key"), timeout=5) as client:
        airbyte.lose_route(gateway, status=status)
        failure = await failure_of(client)

    assert type(failure) is UpstreamNotAirbyte
    assert failure.code == "upstream_not_airbyte"
    assert not failure.is_over


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_transient_gateway_error_is_unknown(
    airbyte: AirbyteServer, client: AirbyteClient, gateway: str, status: int
) -> None:
    """Such an answer does not say that Airbyte has ended its work."""
    airbyte.lose_route(gateway, status=status)

    failure = await failure_of(client)

    assert isinstance(failure, UpstreamUnknown)
    assert not failure.is_over


ERROR_ID = "0b9d7a52-6a3c-4a52-9f0e-5f4f0f1a2b3c"
SPRING = {"timestamp": "2026-11-28T10:00:00Z", "status": 404, "path": "/api/v1/sources/update"}


@pytest.mark.parametrize(
    "body",
    [
        SPRING | {"errorId": ERROR_ID, "message": "No route."},
        {"errorId": ERROR_ID, "errorCode": "ROUTE_NOT_FOUND"},
        {"errorId": ERROR_ID, "statusCode": 404, "message": "Not Found"},
        {"errorId": ERROR_ID, "error": {"code": 404}},
        SPRING | {"exceptionClassName": "org.springframework.web.server.ResponseStatusException"},
        SPRING | {"message": "…", "validationErrors": [{"propertyPath": "body"}]},
    ],
    ids=str,
)
@pytest.mark.parametrize("status", [400, 403, 404, 409, 422])
async def test_error_id_beside_foreign_members_is_not_airbytes(
    airbyte: AirbyteServer, client: AirbyteClient, body: Json, status: int
) -> None:
    """Many servers give their errors an id to find them by in a log."""
    airbyte.answer(PATH, body, status=status, times=None, effect=False)

    assert type(await failure_of(client)) is UpstreamNotAirbyte


CATALOG = orjson.dumps(
    {
        "streams": [
            {
                "stream": {"name": "Account", "jsonSchema": {"type": "object"}},
                "config": {
                    "selected": True,
                    "syncMode": "full_refresh",
                    "destinationSyncMode": "append",
                },
            }
        ]
    }
)
LOGIN_PAGE = "<!DOCTYPE html><html><title>Sign in</title></html>"


@pytest.mark.parametrize(
    "body",
    [LOGIN_PAGE, {"status": "ok"}, {}, [], {"message": "signed out"}, b"null", b"ok", b"true", b""],
    ids=str,
)
async def test_foreign_200_is_not_airbytes(
    airbyte: AirbyteServer, client: AirbyteClient, body: Any
) -> None:
    """A login page with 200, or a gateway's own JSON."""
    source = UUID(airbyte.add_source("crm")["sourceId"])
    airbyte.answer("*", body, times=None, effect=False)
    calls = (
        client.get_source(source),
        client.get_configured_source(source),
        client.check_source_update(source, {}, name="crm"),
        client.discover_schema(source),
        client.get_connection(uuid4()),
        client.list_sources(WORKSPACE),
        client.list_connections(WORKSPACE),
        client.connections_of_source(source, WORKSPACE),
        client.recent_jobs(datetime.now(UTC)),
        client.list_destinations(WORKSPACE),
        client.source_definitions(WORKSPACE),
        client.source_specification(uuid4(), WORKSPACE),
        client.specification_of_source(source),
        client.check_configuration(uuid4(), WORKSPACE, {}),
        client.destination_definitions(WORKSPACE),
        client.set_status(uuid4(), "inactive"),
        client.update_connection(uuid4(), CATALOG),
        client.trigger_sync(uuid4()),
        client.delete_source(source, workspace_id=WORKSPACE),
        client.delete_connection(uuid4(), workspace_id=WORKSPACE),
        client.get_job(1),
        client.list_jobs(uuid4(), limit=5),
        client.running_jobs(),
        client.get_destination(uuid4()),
        client.get_workspace(WORKSPACE),
        client.instance(),
        client.health(),
        client.connection_statuses([uuid4()]),
    )
    for call in calls:
        with pytest.raises(UpstreamUnknown):
            await call


async def test_foreign_200_in_the_synchronous_discovery() -> None:
    async with (
        AirbyteServer(version="0.63.19") as airbyte,
        AirbyteClient(airbyte.url, timeout=5) as client,
    ):
        source = UUID(airbyte.add_source("crm")["sourceId"])
        airbyte.answer("sources/discover_schema", {"status": "ok"}, times=None, effect=False)
        with pytest.raises(UpstreamUnknown):
            await client.discover_schema(source)


async def test_proxy_413_for_a_large_body_is_believed(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    airbyte.lose_route("nginx", status=413)
    with pytest.raises(Invalid) as caught:
        await client.create_source(
            WORKSPACE, {"text": "x" * 100_000}, name="crm", source_definition_id=uuid4()
        )
    assert caught.value.code == "catalog_too_large"


@pytest.mark.parametrize(
    "body,part",
    [
        (problem(400, "error:cron-validation/invalid-expression", "Invalid"), "schedule"),
        (problem(400, "error:cron-validation/invalid-timezone", "Invalid"), "schedule"),
        (
            problem(400, "error:basic-schedule-validation/under-one-hour-not-allowed", "…"),
            "schedule",
        ),
        (problem(400, "error:connection-conflicting-destination-stream", "…"), "streams"),
        (problem(400, "error:connection/destination-catalog/required", "…"), "streams"),
        (
            problem(400, REFERENCE, "bad-request", "Primary key for stream: Schedule is already"),
            "streams",
        ),
        (known("The cron expression is invalid"), "schedule"),
        (known("Invalid cron expression: 0 0 * * *"), "schedule"),
        (known("Use either schedule or scheduleType, not both."), "schedule"),
        (known("Catalog contains duplicate stream names: […]"), "streams"),
        (known("Total number of selected fields (20001) is greater than the limit"), "streams"),
        (known("The provided configuration does not fulfill the specification."), "credential"),
        (known("namespaceFormat must be given"), "namespace"),
        # Some releases send these without a class name; no gateway says them.
        ({"message": "The cron expression is invalid"}, "schedule"),
        ({"message": "The specified cron timezone is invalid"}, "schedule"),
        (known("Something else"), None),
    ],
    ids=str,
)
async def test_refusal_names_the_part_of_the_request(
    airbyte: AirbyteServer, client: AirbyteClient, body: Json, part: str | None
) -> None:
    """By known phrases alone; Airbyte's text is not repeated."""
    airbyte.answer(PATH, body, status=400, effect=False)

    failure = await failure_of(client)

    assert type(failure) is UpstreamRefused
    assert failure.members.get("part") == part
    assert "Schedule is already" not in failure.detail
    assert failure.detail.endswith(f"It is about the {part}.") is (part is not None)


async def test_deleted_page_anchor_is_not_a_missing_object(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """Where the connection that a page ended with is deleted meanwhile, the whole list is read."""
    source = UUID(airbyte.add_source("crm")["sourceId"])
    destination = UUID(airbyte.add_destination()["destinationId"])
    connection = await client.create_connection(
        NewConnection("first", source, destination, CATALOG)
    )
    held = airbyte.connections[str(connection.connection_id)]
    for number in range(118):
        copy = {**held, "connectionId": str(uuid4()), "name": f"connection {number}"}
        airbyte.connections[copy["connectionId"]] = copy
    listing = "web_backend/connections/list"

    assert len(await client.list_connections(WORKSPACE)) == 119
    assert len(await client.connections_of_source(source, WORKSPACE)) == 119
    assert await client.connections_of_source(uuid4(), WORKSPACE) == []
    assert len(airbyte.called(listing)) == 5
    assert airbyte.called("connections/list") == []

    gone = {"errorId": str(uuid4())}
    airbyte.answer(listing, gone, status=404, skip=1, effect=False)
    assert len(await client.list_connections(WORKSPACE)) == 119
    assert len(airbyte.called("connections/list")) == 1
    airbyte.answer(listing, gone, status=404, effect=False)
    with pytest.raises(UpstreamMissing):
        await client.list_connections(WORKSPACE)
