"""When a token is replaced: by its claims, else by its response, else soon."""

from __future__ import annotations

import base64

import msgspec
import pytest

from shared.airbyte_client._access_tokens import _renew_at
from shared.airbyte_client._schemas import Token

NOW = 1_800_000_000.0


def jwt(**claims: float) -> str:
    """Build a token with these claims."""
    payload = base64.urlsafe_b64encode(msgspec.json.encode(claims)).rstrip(b"=").decode()
    return f"head.{payload}.signature"


@pytest.mark.parametrize(
    "token, expires_in, used_s",
    [
        (jwt(exp=NOW + 900), None, 840),
        (jwt(exp=NOW + 900), 30.0, 840),
        (jwt(exp=NOW + 100), None, 80),
        (jwt(sub=1), 900.0, 840),
        ("opaque", 180.0, 144),
        ("opaque", None, 120),
        ("a.b.c", None, 120),
        (jwt(), None, 120),
    ],
)
def test_token_is_replaced_before_its_end(
    token: str, expires_in: float | None, used_s: float
) -> None:
    """A fifth of its lifetime early, at most a minute; a lifetime that is not stated is short."""
    assert _renew_at(Token(token, expires_in), NOW) - NOW == pytest.approx(used_s)


@pytest.mark.parametrize("airbytes_clock", [NOW - 3600, NOW + 3600])
def test_clock_of_another_machine_does_not_change_the_lifetime(airbytes_clock: float) -> None:
    token = jwt(iat=airbytes_clock, exp=airbytes_clock + 900)

    assert _renew_at(Token(token), NOW) - NOW == pytest.approx(840)


def test_token_that_seems_expired_is_not_requested_for_each_call() -> None:
    """Without `iat`, the end is in the past by the clock of this machine."""
    assert _renew_at(Token(jwt(exp=NOW - 3600)), NOW) > NOW
