"""The address of the person for whom the console calls, which the console signs.

The services see the console's address for everybody who uses it. They count failed authentications
by the signed one instead, so that each person has a limit of their own, whatever the network.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from shared.auth.failed_attempts import network
from shared.auth.service_tokens import BadToken, Signer, Verifier
from shared.observability import logs

log = logs.get(__name__)

HEADER: Final = "X-AAM-Client"
_NAME: Final = HEADER.lower().encode()
_FORWARDING: Final = "console"
_LONGEST_TOKEN: Final = 2048
_LONGEST_ADDRESS: Final = 45
"""An IPv6 address that ends with an IPv4 address."""


def signed(signer: Signer, service: str, address: str) -> str:
    """The header's value for a call to a service; the address may be anything."""
    is_one = len(address) <= _LONGEST_ADDRESS and network(address) != "unknown"
    return signer.token(service, "", client=address if is_one else "unknown")


def forwarded_address(verifier: Verifier, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The address that the console has signed; None without one, or if its token is not valid."""
    given = [value for name, value in headers if name == _NAME]
    if len(given) != 1 or len(given[0]) > _LONGEST_TOKEN:
        return None
    try:
        claims = verifier.claims(given[0].decode("latin-1"))
    except BadToken as error:
        # nosemgrep: logged-exception-text - fixed sentences, none quotes the token
        log.info("token_refused", reason=str(error))
        return None
    return claims.client if claims.service == _FORWARDING else None
