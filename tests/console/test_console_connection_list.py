"""The list of connections: filters, counts, order, pages, and actions on several."""

from __future__ import annotations

from html import unescape
from urllib.parse import parse_qsl
from uuid import UUID

import pytest

from services.console import text
from services.console.connection_filter import ConnectionFilter
from services.console.pages import connection_bulk
from services.console.sparklines import sparkline
from tests.console.browser import Browser
from tests.console.double import Double, json, page, problem
from tests.console.fleet_samples import IDS, REPAIRS, WAREHOUSE, connection, fill, summary
from tests.console.test_console_security import HOSTILE, injected


async def test_list_of_a_fleet(signed_in: Browser, double: Double) -> None:
    """Health with its reason, source and destination, last sync, next check, version, labels."""
    fill(double)

    shown = await signed_in.get("/connections")

    assert shown.status == 200
    assert "247 connections from 2 source types to 1 destination." in shown.text
    assert "Google Ads → Snowflake analytics" in shown.text
    assert "Airbyte accepted version 7 and holds another catalog." in shown.text
    assert "failed , 4 in a row" in shown.text or "failed, 4 in a row" in shown.text
    assert f'href="/repairs/{REPAIRS[1]}"' in shown.html
    assert 'href="/connections?label=tier%3D1"' in shown.html
    assert "9 shown of 247" in shown.text
    (asked,) = double.of("GET", "/connections")
    assert asked.query == "sort=health&include=health&include=syncs&limit=100"


async def test_filters_are_in_the_address(signed_in: Browser, double: Double) -> None:
    """They go to the API, and each can be taken away by a link."""
    fill(double)
    query = f"q=sales&health=failed&source_type=HubSpot&destination_id={WAREHOUSE}&label=team%3Dcrm"

    shown = await signed_in.get(f"/connections?{query}&sort=name")

    asked = dict(parse_qsl(double.of("GET", "/connections")[-1].query))
    assert asked == {
        "q": "sales",
        "health": "failed",
        "source_type": "HubSpot",
        "destination_id": WAREHOUSE,
        "label": "team=crm",
        "sort": "name",
        "include": "syncs",
        "limit": "100",
    }
    counted = [one.query for one in double.of("GET", "/connections/summary")]
    assert "health" not in "".join(counted)
    assert any("source_type=HubSpot" in one for one in counted)
    assert "Destination: Snowflake analytics" in shown.text
    assert f'href="/connections?{query}"' in unescape(shown.html)  # the order by health
    without = query.replace("source_type=HubSpot&", "")
    assert f'href="/connections?{without}&sort=name"' in unescape(shown.html)


async def test_connections_of_a_credential(signed_in: Browser, double: Double) -> None:
    """A filter like the others, by the link of a connection's head."""
    fill(double)

    shown = await signed_in.get("/connections?credential_id=crm-prod&sort=name")

    assert "credential_id=crm-prod" in double.of("GET", "/connections")[-1].query
    assert "Credential: crm-prod" in shown.text
    assert 'href="/connections?sort=name"' in shown.html
    assert shown.fields["credential_id"] == "crm-prod"
    again = await signed_in.get("/connections")
    assert again.location == "/connections?credential_id=crm-prod&sort=name"


async def test_filters_that_are_not_among_the_counts(signed_in: Browser, double: Double) -> None:
    """Filtering again keeps them, with counts and without."""
    fill(double)
    query = f"source_type=Rare&destination_id={IDS[1]}"

    listed = await signed_in.get(f"/connections?{query}")
    double.answers["GET /connections/summary"] = lambda _: problem(503, "unavailable", "Away.")
    uncounted = await signed_in.get(f"/connections?{query}")

    assert '<option value="Rare" selected>' in listed.html
    assert f'<option value="{IDS[1]}" selected>' in listed.html
    assert uncounted.fields["source_type"] == "Rare"
    assert uncounted.fields["destination_id"] == IDS[1]


async def test_last_filter_is_kept(signed_in: Browser, double: Double) -> None:
    """The address without a query leads to it, until everything is asked for."""
    fill(double)
    first = await signed_in.get("/connections?health=failed&after=cursor-2")
    kept = [one for one in first.response.headers.get_list("set-cookie") if "aam-filter" in one]
    assert len(kept) == 1
    assert "HttpOnly" in kept[0]
    assert "Path=/connections" in kept[0]

    again = await signed_in.get("/connections")
    assert (again.status, again.location) == (303, "/connections?health=failed")

    await signed_in.get("/connections?show=all")
    assert (await signed_in.get("/connections")).status == 200


@pytest.mark.parametrize(
    "value",
    ["%", "health%3Dnothing", "a" * 5_000, "%26a" * 200, "%FF%00", "%22%3Cscript"],
)
async def test_cookie_with_anything(signed_in: Browser, double: Double, value: str) -> None:
    """A stored filter that is invalid is ignored."""
    fill(double)

    shown = await signed_in.get("/connections", headers={"Cookie": _cookies(signed_in, value)})

    assert shown.status == 200


def _cookies(browser: Browser, value: str) -> str:
    own = [f"{one.name}={one.value}" for one in browser.client.cookies.jar]
    return "; ".join([*own, f"aam-filter={value}"])


async def test_pages_go_both_ways(signed_in: Browser, double: Double) -> None:
    """Previous leads back page by page, without the browser's history."""
    fill(double)
    double.by_query = {}
    urls = ["/connections?q=a"]
    for n in (2, 3, 4):
        double.answers["GET /connections"] = page(connection(1, "One"), next=f"c{n}")
        shown = await signed_in.get(urls[-1])
        urls.append(unescape(shown.html.partition('rel="next" href="')[2].partition('"')[0]))
    assert urls[1:] == [
        "/connections?q=a&after=c2",
        "/connections?q=a&after=c3&back=c2",
        "/connections?q=a&after=c4&back=c2&back=c3",
    ]

    for place in (3, 2, 1):
        shown = await signed_in.get(urls[place])
        back = unescape(shown.html.partition('rel="prev" href="')[2].partition('"')[0])
        assert back == urls[place - 1]


def test_many_pages_back() -> None:
    """The address stays short; then Previous is replaced by a link to the first page."""
    shown = ConnectionFilter()
    for n in range(20):
        query = parse_qsl(shown.next_url(f"c{n}").partition("?")[2], keep_blank_values=True)
        shown = ConnectionFilter.of(query)
    assert len(shown.next_url("x")) < 200
    labels = []
    while (before := shown.previous()) is not None:
        labels.append(before[0])
        query = parse_qsl(before[1].partition("?")[2], keep_blank_values=True)
        shown = ConnectionFilter.of(query)
    assert labels[-1] == "First page"
    assert set(labels[:-1]) == {"Previous"}


@pytest.mark.parametrize(
    "query",
    [
        "health=nothing",
        "destination_id=x",
        "label=UPPER",
        "sort=size",
        "q=%00",
        "after=" + "x" * 2000,
    ],
)
async def test_values_that_are_invalid(signed_in: Browser, double: Double, query: str) -> None:
    """They are left out instead of making the page an error."""
    fill(double)

    shown = await signed_in.get(f"/connections?{query}")

    assert shown.status == 200
    assert (
        double.of("GET", "/connections")[-1].query
        == "sort=health&include=health&include=syncs&limit=100"
    )
    assert ("A label is written as name=value" in shown.text) == query.startswith("label")


async def test_no_match_and_no_connections(signed_in: Browser, double: Double) -> None:
    """Two empty states: one takes the filters away, the other says how to begin."""
    double.answers |= {"GET /connections": page(), "GET /connections/summary": summary()}

    assert "No connection matches" in (await signed_in.get("/connections?q=salesfroce")).text
    assert "No connections yet" in (await signed_in.get("/connections?show=all")).text


async def test_counts_may_be_away(signed_in: Browser, double: Double) -> None:
    """And the names of destinations, which come from Airbyte."""
    fill(double)
    double.answers |= {
        "GET /connections/summary": lambda _: problem(503, "unavailable", "Away."),
        "GET /destinations": lambda _: problem(502, "upstream_unreachable", "Airbyte is away."),
    }

    shown = await signed_in.get("/connections")

    assert shown.status == 200
    assert "Counts: not available now. Away." in shown.text
    assert f"Google Ads → destination {WAREHOUSE[:8]}" in shown.text


async def test_destinations_are_read_once(signed_in: Browser, double: Double) -> None:
    """Not for every page: Airbyte is asked at most once a minute for each person."""
    fill(double)

    for _ in range(3):
        await signed_in.get("/connections?sort=name")

    assert len(double.of("GET", "/destinations")) == 1


async def test_connection_without_health(signed_in: Browser, double: Double) -> None:
    """It has none while it is being computed."""
    fill(double)
    double.by_query = {}
    double.answers["GET /connections"] = page(connection(1, "One") | {"health": None})

    shown = await signed_in.get("/connections?show=all")

    assert "Its health is being computed." in shown.text


async def test_archived_connections_are_only_shown(signed_in: Browser, double: Double) -> None:
    """There is nothing to do to them."""
    fill(double)

    shown = await signed_in.get("/connections?health=archived")

    assert "With the selected connections" not in shown.text
    assert 'type="checkbox"' not in shown.html


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_names_in_the_list(signed_in: Browser, double: Double, name: str) -> None:
    """Names, reasons, labels and destinations are text, and a form field is exact."""
    fill(double)
    double.by_query = {}
    row = connection(1, name, "differs", reason=name, source_type=name, labels={"team": name})
    double.answers |= {
        "GET /connections": page(row),
        "GET /destinations": page({"id": WAREHOUSE, "name": name}),
    }

    shown = await signed_in.get("/connections?sort=name")

    assert shown.status == 200
    assert unescape(shown.html).count(f"<bdi>{text.visible_name(name)}</bdi>") >= 4
    assert not injected(shown.html)


async def test_one_refusal_does_not_stop_the_others(signed_in: Browser, double: Double) -> None:
    """Each connection has its own result and its own key, and refusals come first."""
    fill(double)
    await signed_in.get("/connections")
    job = {"operation_id": IDS[0], "job_id": IDS[0]}
    double.answers |= {
        f"POST /connections/{IDS[1]}/sync": lambda _: json(job, 202),
        f"POST /connections/{IDS[2]}/sync": lambda _: problem(
            409, "sync_running", "A sync is running already."
        ),
        f"POST /connections/{IDS[3]}/sync": lambda _: json({"operation_id": IDS[0]}, 202),
    }
    fields = {
        "do": "sync",
        "id": [IDS[1], IDS[2], IDS[3], IDS[1]],
        f"name.{IDS[2]}": "HubSpot marketing",
        "back": "/connections?health=failed",
    }

    shown = await signed_in.post("/connections/bulk", fields)

    assert shown.status == 200
    assert "Accepted for 2 of 3 connections, refused for 1." in shown.text
    assert "HubSpot marketing A sync is running already. sync_running" in shown.text
    assert "A sync was started." in shown.text
    assert "A sync is being started." in shown.text
    assert 'href="/connections?health=failed"' in shown.html
    sent = [one for one in double.asked if one.path.endswith("/sync")]
    assert len({one.headers["idempotency-key"] for one in sent}) == len(sent) == 3


async def test_every_action(signed_in: Browser, double: Double) -> None:
    """Check, pause and resume go to their routes."""
    fill(double)
    double.answers |= {
        f"POST /connections/{IDS[1]}/observe": {"outcome": "changed"},
        f"PATCH /connections/{IDS[1]}": {"changed": {}, "effects": []},
    }
    for what, said in (
        ("check", "The schema has changed."),
        ("pause", "Paused."),
        ("resume", "Resumed."),
    ):
        await signed_in.get("/connections")
        shown = await signed_in.post("/connections/bulk", {"do": what, "id": IDS[1]})
        assert said in shown.text

    assert [one.json for one in double.of("PATCH", f"/connections/{IDS[1]}")] == [
        {"paused": True},
        {"paused": False},
    ]


async def test_bulk_without_the_scope(browser: Browser, double: Double) -> None:
    """Each connection shows the refusal of the service; the bar's buttons are disabled."""
    double.scopes = ("connections:read",)
    await browser.sign_in(double.key)
    fill(double)
    bar = await browser.get("/connections")
    double.answers[f"POST /connections/{IDS[1]}/sync"] = lambda _: problem(
        403, "forbidden", "This needs the scope connections:sync."
    )

    shown = await browser.post("/connections/bulk", {"do": "sync", "id": IDS[1]})

    assert "Needs connections:sync" in bar.text
    assert shown.status == 200
    assert "Refused for the connection." in shown.text
    assert "This needs the scope connections:sync." in shown.text


async def test_forms_of_nothing(signed_in: Browser, double: Double) -> None:
    """Without a connection it goes back; anything else that the page cannot send is refused."""
    fill(double)
    await signed_in.get("/connections")
    empty = await signed_in.post("/connections/bulk", {"do": "sync"})
    assert (empty.status, empty.location) == (303, "/connections")
    elsewhere = await signed_in.post("/connections/bulk", {"do": "sync", "back": "//evil.example"})
    assert elsewhere.location == "/"
    for fields in (
        {"do": "delete", "id": IDS[1]},
        {"do": "sync", "id": "../x"},
        {"do": "sync", "id": [f"7d0c7f4e-6a3c-4b9d-9a57-{n:012d}" for n in range(101)]},
    ):
        assert (await signed_in.post("/connections/bulk", fields)).status == 422
    assert not [one for one in double.asked if one.method == "POST" and one.path != "/login"]


async def test_revoked_key_in_a_bulk_action(signed_in: Browser, double: Double) -> None:
    """It leads to the login page, without a result."""
    fill(double)
    await signed_in.get("/connections")
    double.is_revoked = True

    shown = await signed_in.post("/connections/bulk", {"do": "sync", "id": IDS[1]})

    assert shown.status == 401


def test_key_of_each_connection() -> None:
    """The same for the same form, different for each connection."""
    ids = [UUID(one) for one in IDS]
    keys = {connection_bulk._key("form-1", one) for one in ids}
    assert len({*keys, connection_bulk._key("form-2", ids[0])}) == len(ids) + 1
    assert connection_bulk._key("form-1", ids[0]) in keys


@pytest.mark.parametrize(
    "route, answer, leads_to",
    [
        (f"GET /connections/{IDS[1]}", {"id": IDS[1]}, f"/connections/{IDS[1]}"),
        (f"GET /repairs/{IDS[1]}/changes", page(), f"/repairs/{IDS[1]}"),
        ("GET /connections", page(connection(2, "x")), f"/connections/{IDS[2]}"),
        (
            "GET /connections",
            page(connection(2, "x"), connection(3, "y")),
            f"/connections?q={IDS[1]}",
        ),
        (f"GET /drifts/{IDS[1]}", {"connection_id": IDS[4]}, f"/drifts/{IDS[1]}"),
        (f"GET /operations/{IDS[1]}", {"connection_id": IDS[4]}, f"/operations/{IDS[1]}"),
    ],
)
async def test_search_for_an_id(
    signed_in: Browser, double: Double, route: str, answer: object, leads_to: str
) -> None:
    """It leads to what has the id."""
    double.answers |= {"GET /connections": page(), route: answer}

    shown = await signed_in.get(f"/search?q=+{IDS[1].upper()}+")

    assert (shown.status, shown.location) == (303, leads_to)


async def test_search_for_an_id_of_archived_connections(signed_in: Browser, double: Double) -> None:
    """An id that several of them share leads to the list of archived ones."""
    double.answers["GET /connections"] = page()
    double.by_query["GET /connections", f"q={IDS[1]}&archived=true"] = page(
        connection(2, "x"), connection(3, "y")
    )

    shown = await signed_in.get(f"/search?q={IDS[1]}")

    assert shown.location == f"/connections?q={IDS[1]}&health=archived"


async def test_search_for_a_name(signed_in: Browser, double: Double) -> None:
    """It leads to the list; nothing leads to everything."""
    found = await signed_in.get("/search?q=Sales+%26+more")
    assert found.location == "/connections?q=Sales+%26+more"
    assert (await signed_in.get("/search?q=")).location == "/connections"


async def test_search_without_a_result(signed_in: Browser, double: Double) -> None:
    """404 if nothing has the id; a problem if a service that may know it does not answer."""
    double.answers["GET /connections"] = page()
    nothing = await signed_in.get(f"/search?q={IDS[1]}")
    assert nothing.status == 404
    assert "Nothing has this id" in nothing.text

    double.answers[f"GET /drifts/{IDS[1]}"] = lambda _: problem(503, "unavailable", "Away.")
    assert (await signed_in.get(f"/search?q={IDS[1]}")).status == 503


async def test_address_of_airbyte(signed_in: Browser, double: Double) -> None:
    """A connection in Airbyte leads to the same one here."""
    double.answers["GET /connections"] = page(connection(2, "x"))
    assert (await signed_in.get(f"/airbyte/{IDS[1]}")).location == f"/connections/{IDS[2]}"
    double.answers["GET /connections"] = page()
    assert (await signed_in.get(f"/airbyte/{IDS[1]}")).status == 404
    query = f"airbyte_connection_id={IDS[1]}&archived=true"
    double.by_query["GET /connections", query] = page(connection(3, "y"))
    assert (await signed_in.get(f"/airbyte/{IDS[1]}")).location == f"/connections/{IDS[3]}"


async def test_archiving_several_has_to_be_typed(signed_in: Browser, double: Double) -> None:
    """First a page that says what it destroys; then each has its own result."""
    fill(double)
    double.answers |= {
        f"GET /connections/{IDS[1]}": connection(1, "Billing", imported=False, archived_at=None),
        f"GET /connections/{IDS[2]}": connection(2, "Ours", imported=True, archived_at=None),
        f"GET /connections/{IDS[3]}": lambda _: problem(503, "unavailable", "Away."),
        f"DELETE /connections/{IDS[1]}": lambda _: json(None, 204),
        f"DELETE /connections/{IDS[2]}": lambda _: json({"operation_id": IDS[0]}, 202),
        f"DELETE /connections/{IDS[3]}": lambda _: problem(503, "unavailable", "Away."),
    }
    await signed_in.get("/connections")
    fields = {"do": "archive", "id": IDS[1:4], f"name.{IDS[3]}": "Third", "back": "/connections"}

    asked = await signed_in.post("/connections/bulk", fields)
    assert asked.status == 200
    assert "Archive 3 connections?" in asked.text
    assert "Billing Salesforce Deleted Ours Salesforce Stays Third Away." in asked.text
    wrong = await signed_in.post("/connections/bulk", fields | {"confirm": "archive 2"})
    assert (wrong.status, "The typed text does not match." in wrong.text) == (422, True)
    assert not [one for one in double.asked if one.method == "DELETE"]

    shown = await signed_in.post("/connections/bulk", fields | {"confirm": " archive  3 "})

    assert "Accepted for 2 of 3 connections, refused for 1." in shown.text
    assert "Archived." in shown.text
    assert "It is being archived." in shown.text


async def test_newest_syncs_are_a_small_chart(signed_in: Browser, double: Double) -> None:
    """With the same in words; a connection without syncs has none."""
    syncs = [
        {"status": "running", "records": None},
        {"status": "failed", "records": 0},
        {"status": "succeeded", "records": 50},
        {"status": "succeeded", "records": 100},
    ]
    double.answers["GET /connections"] = page(
        connection(1, "Busy", recent_syncs=syncs), connection(2, "Quiet", recent_syncs=[])
    )

    shown = await signed_in.get("/connections")

    assert 'aria-label="Last 4 syncs: 2 succeeded, 1 failed, 1 running"' in shown.html
    assert 'class="ok" d="M0 20v-20h5v20zM7 20v-10h5v10z"' in shown.html
    assert shown.html.count('class="bars spark"') == 1


@pytest.mark.parametrize("records", [None, 0])
def test_chart_of_syncs_without_records(records: int | None) -> None:
    """Bars of the least height."""
    chart = sparkline([{"status": "succeeded", "records": records}] * 20)
    assert chart is not None
    assert chart.label == "Last 12 syncs: 12 succeeded"
    assert chart.paths[0][1].count("v-2h") == 12
