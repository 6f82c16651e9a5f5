"""Which cause a connector's message names; no word of the message is passed on but listed ones."""

from __future__ import annotations

import re
from uuid import UUID

import pytest

from shared import failure_causes
from shared.failure_causes import Cause, find

SECRET = "AAMCANARY-00Dxx0000001gPF!AQ4AQ"


@pytest.mark.parametrize(
    "message, cause",
    [
        (
            "HTTP Status 400 error, invalid_grant: expired access/refresh token",
            "authentication_failed",
        ),
        ("Failed to authenticate: invalid_client_id", "authentication_failed"),
        ("401 Client Error: Unauthorized for url", "authentication_failed"),
        ("FATAL: password authentication failed for user", "authentication_failed"),
        ("Access denied for user 'bob'@'10.0.0.7' (using password: YES)", "authentication_failed"),
        ("The authentication to SalesForce has expired. Re-authenticate.", "authentication_failed"),
        ("INSUFFICIENT_ACCESS: this user lacks the View Setup permission", "permission_missing"),
        ("403 Forbidden", "permission_missing"),
        ("ERROR: permission denied for table orders", "permission_missing"),
        ("REQUEST_LIMIT_EXCEEDED: TotalRequests Limit exceeded.", "quota_exceeded"),
        ("429 Client Error: Too Many Requests", "quota_exceeded"),
        ("403 Forbidden: rate limit exceeded", "quota_exceeded"),
        ("socket.gaierror: [Errno -2] Name or service not known", "host_unknown"),
        ("java.net.UnknownHostException: db.internal", "host_unknown"),
        ("SSLError: CERTIFICATE_VERIFY_FAILED certificate has expired", "tls_failed"),
        ("Connection to db.internal:5432 refused. connection refused", "network_failed"),
        ("HikariPool-1 - Connection is not available, request timed out", "network_failed"),
        ("Config validation error: 'client_id' is a required property", "configuration_invalid"),
        ("java.lang.OutOfMemoryError: Java heap space", "out_of_memory"),
        ("503 Server Error: Service Unavailable", "source_unavailable"),
        ("inactive_user: inactive user", "authentication_failed"),
        ("invalid_grant_: user hasn't approved this consumer", "authentication_failed"),
        ("invalid_client_: client identifier invalid", "authentication_failed"),
        ("invalid_grant_: ip restricted", "authentication_failed"),
        ("The token has been revoked", "authentication_failed"),
        ("Encountered an error while trying to refresh the token", "authentication_failed"),
        ("LOGIN_MUST_USE_SECURITY_TOKEN", "authentication_failed"),
        ("OAUTH_APP_ACCESS_DENIED", "authentication_failed"),
        ("FATAL: no pg_hba.conf entry for host", "authentication_failed"),
        ("You do not have permission to list objects", "permission_missing"),
        ("sObject type 'Case' is not supported.", "permission_missing"),
        ("You are not authorized to access this", "permission_missing"),
        ("ConcurrentPerOrgLongTxn Limit exceeded", "quota_exceeded"),
        ("You have reached your API limit", "quota_exceeded"),
        ("the query was throttled", "quota_exceeded"),
        ("hostname 'a.example' doesn't match 'b.example'", "tls_failed"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "tls_failed"),
        ("server does not support SSL, but SSL was required", "tls_failed"),
        ("Connection to db.internal:5432 refused.", "network_failed"),
        ("Could not connect with provided configuration.", "network_failed"),
        ("unsupported_grant_type", "configuration_invalid"),
        ("The process was killed by signal 9", "out_of_memory"),
        ("The org is down for maintenance", "source_unavailable"),
        ("Something went wrong in the connector.", "unknown"),
        ("Read 3 tokens of 17", "unknown"),
        ("The memory limit exceeded that of the pod", "unknown"),
        ("", "unknown"),
    ],
)
def test_known_cause_is_named(message: str, cause: str) -> None:
    """In whichever of the messages, and whatever the text around it."""
    for messages in ((message,), (None, f"Traceback: {SECRET}\n{message}")):
        found = find(*messages)
        assert found.cause == cause
        assert SECRET not in found.explanation
        assert "bob" not in found.explanation
        assert "db.internal" not in found.explanation


@pytest.mark.parametrize("cause", Cause)
def test_each_cause_has_an_explanation(cause: Cause) -> None:
    """Of plain words, for a person who has to act."""
    assert re.fullmatch(r"[A-Z][^{}<>]+\.", failure_causes._SENTENCES[cause])


def test_only_listed_words_and_fields_are_repeated() -> None:
    """An error code that Salesforce writes, a field that AAM knows; no value of either."""
    found = find(f"400: invalid_grant for {SECRET}; invalid_granted 4010")
    assert found.explanation.endswith(". The message contains: invalid_grant.")
    found = find(f"Config validation error: 'client_secret' is a required property; '{SECRET}'")
    assert found.explanation.endswith(". It is about: client_secret.")
    assert "AAMCANARY" not in found.explanation


@pytest.mark.parametrize("message", [17, ["invalid_grant"], {"message": "401"}, b"401", True, None])
def test_message_of_another_type_is_ignored(message: object) -> None:
    """Airbyte's own type for it may change."""
    assert find(message).cause is Cause.UNKNOWN


def test_unknown_failure_type_and_cancelled_run() -> None:
    """The type itself is passed on elsewhere."""
    assert find("401", failure_type="invented_error").cause is Cause.AUTHENTICATION_FAILED
    assert find("", failure_type="manual_cancellation").cause is Cause.CANCELLED


def test_log_reference_is_a_number_or_uuid() -> None:
    """Anything else could be a message."""
    run = UUID("7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f")
    assert find("", run=42).log == "Airbyte job 42"
    assert find("", run=str(run)).log == f"Airbyte run {run}"
    assert find("", run=SECRET).log is None


def test_long_message_is_searched_quickly() -> None:
    """Connectors print megabytes in one line."""
    for text in ("a" * 1_000_000, "exceed" * 100_000, "invalid " * 100_000, "(" * 1_000_000):
        assert find(text).cause in Cause
