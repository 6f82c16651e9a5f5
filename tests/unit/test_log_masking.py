"""What of a connector's log is shown: only words that are known to be harmless."""

from __future__ import annotations

import pytest

from services.orchestrator.log_masking import LONGEST_LINE, MASK, masked
from tests import leaks

SECRET = (
    leaks.canary("a token in a connector's log") + "7"
)  # a secret without a digit may look like words


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-22 09:31:04 info source > Read 700 records from Account stream",
        "2026-11-22 09:31:04 error platform > connection refused after 30s (attempt 2 of 3)",
        "Traceback (most recent call last):",
        '  File "/airbyte/source/streams.py", line 155, in read_records',
        "at io.airbyte.workers.general.ReplicationWorker.run(ReplicationWorker.kt:123)",
        "The refresh token has expired.",
        "HTTPSConnectionPool of SalesforceBulkQueryJobError",
        "HTTP 401: unauthorized",
        "",
    ],
)
def test_plain_lines_are_shown_as_they_are(line: str) -> None:
    assert masked(line) == line


@pytest.mark.parametrize(
    "line",
    [
        "token=SECRET",
        "a line with SECRET in it",
        '{"client_secret": "SECRET"}',
        "Authorization: Bearer SECRET",
        "https://user:SECRET@login.example.com/path",
        "GET https://example.com/data?key=SECRET&page=2",
        "\\u0022SECRET\\u0022",
        "%22SECRET%22",
        "SECRET",
        "invalid_grant: zwoRNMuOGuNZ-YDttggxPXegV",
        "password: correct horse battery staple",
        'password="hunter"',
        "the password is swordfish, says bob",
        "row {'email': 'ada@example.com', 'ssn': '123-45-6789', 'iban': 'GB29NWBK60161331926819'}",
        "phone +14155550123 of 0171-5550123",
        "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxIn0.abcDEF123",
        "-----BEGIN RSA " + "PRIVATE KEY----- MIIEpAIBAAKCAQEA7",
        "org 00D5g000004ABCD!AQEAQG1234",
        "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f",
    ],
)
def test_values_are_masked(line: str) -> None:
    """In any form; a word that announces a secret has its value masked."""
    shown = masked(line.replace("SECRET", SECRET))
    assert MASK in shown
    for value in (
        *(SECRET, SECRET[:12], SECRET[-12:], "hunter", "swordfish", "horse", "staple"),
        *("ada@", "123-45", "GB29", "55501", "eyJ", "MIIE", "00D5", "7d0c", "zwoRN"),
    ):
        assert value not in shown


def test_names_of_the_catalog_are_shown() -> None:
    """But not as the value of a word that announces a secret."""
    line = "column 'Region__c2' of Account2 is missing"
    assert masked(line) == f"column '{MASK}' of {MASK} is missing"
    assert masked(line, frozenset({"Region__c2", "Account2"})) == line
    assert masked("password: Region__c2", frozenset({"Region__c2"})) == f"password: {MASK}"


def test_long_lines_are_cut() -> None:
    """With a mark; masks that follow each other are one."""
    assert masked("word " * 1000) == f"{('word ' * 1000)[:LONGEST_LINE]} …"
    assert masked("a1b2 c3d4, e5f6") == MASK
