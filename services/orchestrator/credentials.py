"""What Airbyte is given of a credential: fetched, told from what it was given before, merged.

Nothing here is kept: of each field there is a keyed digest, which only says whether it is the same.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from pydantic import SecretStr

from shared.airbyte_client import MASK
from shared.errors import (
    Forbidden,
    Invalid,
    NotFound,
    Unauthenticated,
    Unavailable,
    Upstream,
    UpstreamDenied,
    UpstreamUnreachable,
)
from shared.peers import AuthBroker
from shared.sources import SourceType

_FOR_GOOD = frozenset({"credential_not_found", "store_denied"})


async def fetch(auth_broker: AuthBroker, source_type: SourceType, reference: str) -> dict[str, Any]:
    """The connector's configuration, as the store has it now; it holds secrets.

    Raises:
        Invalid: the auth_broker has no such credential, or the credential lacks a variable.
        UpstreamDenied: the auth_broker does not take our token.
        UpstreamUnreachable: it cannot tell now; so nothing was sent to Airbyte.
    """
    try:
        return await auth_broker.connector_config(source_type.name, reference)
    except (Unauthenticated, Forbidden) as error:
        raise UpstreamDenied(
            f"The auth_broker refuses the orchestrator: {error.code}.", code="broker_refused"
        ) from None
    except (NotFound, Upstream, Unavailable) as error:
        if error.code in _FOR_GOOD:
            raise Invalid(error.detail, code=error.code) from None
        raise UpstreamUnreachable(error.detail, code="auth_broker_unavailable") from None


class Digests:
    """Tells whether a field is what Airbyte was given before, without anybody keeping it.

    A plain hash of a short secret gives it away; this one is worth nothing without the key.
    """

    def __init__(self, key: SecretStr) -> None:
        self._key = key.get_secret_value().encode()

    def of(self, reference: str, configuration: Mapping[str, Any]) -> dict[str, str]:
        """A digest of each field of a credential's configuration."""
        return {
            field: self._digest(reference, field, value) for field, value in configuration.items()
        }

    def _digest(self, reference: str, field: str, value: object) -> str:
        told = msgspec.json.encode([reference, field, value])
        return hmac.new(self._key, told, "sha256").hexdigest()


def merged(
    held: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    changed: Collection[str],
    dropped: Collection[str],
    keep_secrets: bool,
) -> dict[str, Any]:
    """What a source is to be configured with: what it holds, with what changed in the store.

    `held` is what Airbyte tells, its secrets masked; a mask that is sent back means "as it is", so
    a token that the connector has renewed stays. With `keep_secrets` that goes for those that
    changed in the store, too: Airbyte has them already.
    """
    pushed = {
        field: MASK if keep_secrets and held.get(field) == MASK else given[field]
        for field in changed
    }
    return {field: value for field, value in held.items() if field not in dropped} | pushed
