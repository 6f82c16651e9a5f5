"""Forms: only those of the console's own pages and of the same session do anything."""

from __future__ import annotations

import pytest

from services.console import csrf
from services.console.forms import Form, parse
from services.console.problems import PageProblem
from tests.console.browser import SAME_ORIGIN, Browser
from tests.console.double import Double, page

OWN = "http://localhost:8006"
SOURCES: dict[str, tuple[dict[str, str], bool]] = {
    "same origin": ({"Sec-Fetch-Site": "same-origin"}, True),
    "same site": ({"Sec-Fetch-Site": "same-site"}, False),
    "cross site": ({"Sec-Fetch-Site": "cross-site"}, False),
    "address bar": ({"Sec-Fetch-Site": "none"}, False),
    "nonsense": ({"Sec-Fetch-Site": "Same-Origin"}, False),
    "own origin": ({"Origin": OWN}, True),
    "own origin by another name": ({"Origin": "http://127.0.0.1:8006"}, True),
    "another port": ({"Origin": "http://localhost:8007"}, False),
    "https": ({"Origin": "https://localhost:8006"}, False),
    "another origin": ({"Origin": "https://evil.example"}, False),
    "a longer name": ({"Origin": "http://localhost:8006.evil.example"}, False),
    "null": ({"Origin": "null"}, False),
    "neither": ({}, False),
    "cross site with the own origin": ({"Sec-Fetch-Site": "cross-site", "Origin": OWN}, False),
    "referer alone": ({"Referer": f"{OWN}/preferences"}, False),
}
TOKENS = ("good", "missing", "empty", "another session's", "changed", "too long", "not base64")


@pytest.mark.parametrize("source", SOURCES)
async def test_source_and_token_are_both_needed(
    signed_in: Browser, double: Double, source: str
) -> None:
    """Every combination of where a form comes from and which token it has."""
    double.answers["GET /connections"] = page()
    await signed_in.get("/connections")
    good = signed_in.page.fields["csrf"]
    tokens = {
        "good": good,
        "empty": "",
        "another session's": csrf.token(b"another session."),
        "changed": ("A" if good[0] != "A" else "B") + good[1:],
        "too long": good + "AAAA",
        "not base64": "ä",
    }
    headers, is_own = SOURCES[source]
    for kind in TOKENS:
        fields = {"csrf": tokens[kind]} if kind in tokens else {}
        answer = await signed_in.client.post(
            "/preferences", data={"theme": "dark", **fields}, headers=headers
        )

        is_done = is_own and kind == "good"
        assert answer.status_code == (303 if is_done else 403), (source, kind)
        assert ("aam-theme=dark" in answer.headers.get("set-cookie", "")) == is_done


async def test_token_is_different_each_time(signed_in: Browser) -> None:
    """Compression of a page by a proxy does not reveal it, and each of them is good."""
    first = (await signed_in.get("/preferences")).fields["csrf"]
    second = (await signed_in.get("/preferences")).fields["csrf"]

    assert first != second
    answer = await signed_in.post("/preferences", {"csrf": first, "theme": "light"})
    assert answer.status == 303


async def test_token_of_before_signing_in(browser: Browser, double: Double) -> None:
    """It is not good afterwards."""
    await browser.get("/login")
    before = browser.page.fields["csrf"]
    await browser.post("/login", {"key": double.key})

    answer = await browser.post("/preferences", {"csrf": before, "theme": "dark"})

    assert answer.status == 403


async def test_signed_out_person_loses_nothing(browser: Browser) -> None:
    """The page says that nothing was done, instead of leading away from what was typed."""
    answer = await browser.post("/preferences", {"theme": "dark"})

    assert answer.status == 401
    assert "Nothing was done." in answer.text


async def test_other_bodies_are_refused(signed_in: Browser) -> None:
    """Neither JSON nor a multipart body, which pages of other sites can send, is a form."""
    for kind in ("application/json", "text/plain", "multipart/form-data; boundary=x"):
        answer = await signed_in.client.post(
            "/preferences", content=b"theme=dark", headers={**SAME_ORIGIN, "Content-Type": kind}
        )
        assert answer.status_code == 415


@pytest.mark.parametrize(
    "body",
    [b"a", b"a=%FF", b"a=%00", b"&&", "a=ä".encode(), b"&".join([b"a=b"] * 10_001)],
    ids=["no value", "no UTF-8", "NUL", "nothing between", "not escaped", "too many"],
)
def test_malformed_form(body: bytes) -> None:
    """Refused as a whole."""
    with pytest.raises(PageProblem):
        parse(body)


def test_values_of_a_form() -> None:
    """Exact where a name must come back, without white space where a person typed it."""
    form = parse(b"id=1&id=2&why=+a%0D%0Ab+&name=%E2%80%AEx+&choice.7=gone")

    assert form.all("id") == ["1", "2"]
    assert form.text("why") == "a\nb"
    assert form.exact("name") == "\u202ex "
    assert form.text("absent") == ""
    assert form.starting_with("choice.") == {"7": "gone"}
    with pytest.raises(PageProblem):
        _ = form.idempotency_key


def test_text_as_one_line() -> None:
    """Line breaks of any kind become spaces; a missing field is empty."""
    form = Form([("why", "  Renamed in\r\nrelease 12.\u2028\x85 See\tthe notes.\n")])

    assert form.line("why") == "Renamed in release 12. See the notes."
    assert form.line("other") == ""
