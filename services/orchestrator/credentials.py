"""Fetches a credential, detects what changed in a configuration, and merges it into a source's.

No secret is stored: each value has a keyed digest, which only shows whether it is the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from services.orchestrator import credential_queries
from shared import registry
from shared.airbyte_client import MASK
from shared.auth import label_limits
from shared.credential_digests import Digests
from shared.credential_documents import Credential
from shared.database import Database
from shared.domain import specification
from shared.domain.specification import Pointer, Specification
from shared.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Unauthenticated,
    Unavailable,
    Upstream,
    UpstreamDenied,
    UpstreamUnreachable,
)
from shared.service_clients import AuthBroker
from shared.source_types import SourceType, references_alike

_FOR_GOOD = frozenset({"credential_not_found", "store_denied"})


async def fetch(auth_broker: AuthBroker, source_type_name: str, reference: str) -> Credential:
    """A credential as currently stored; it holds secrets.

    Raises:
        Invalid: the auth_broker has no such credential, or it is not a document.
        UpstreamDenied: the auth_broker rejects our token.
        UpstreamUnreachable: it is unavailable; nothing was sent to Airbyte.
    """
    try:
        return await auth_broker.document(source_type_name, reference)
    except (Unauthenticated, Forbidden) as error:
        raise UpstreamDenied(
            f"The auth_broker refuses the orchestrator: {error.code}.", code="broker_refused"
        ) from None
    except (NotFound, Upstream, Unavailable) as error:
        if error.code in _FOR_GOOD:
            raise Invalid(error.detail, code=error.code) from None
        raise UpstreamUnreachable(error.detail, code="auth_broker_unavailable") from None


class OrderNote(msgspec.Struct, frozen=True):
    """A note to the caller about an order that succeeded but needs attention."""

    code: str
    message: str


class CredentialShared(Conflict):
    """Another live connection uses the credential of the one being onboarded."""


async def expect_own_credential(db: Database, reference: str | None) -> None:
    """Check that a caller limited by labels does not take a credential from others.

    It may use one that its connections use, by that reference, or one that no connection uses yet
    by any reference which may lead to it.

    Raises:
        Invalid: `credential_not_found`, as for an unknown one: connections that it may not see use
            the credential, and its own do not.
    """
    if reference is None or not label_limits.current():
        return
    alike = references_alike(reference)
    async with db.read() as session:
        own = await credential_queries.used_among(session, alike)
    with label_limits.registry_wide():
        async with db.read() as session:
            used = await credential_queries.used_among(session, alike)
    if reference not in own and used - own:
        raise Invalid(f"No credential {reference}.", code="credential_not_found")


async def expect_unused(
    db: Database,
    digests: Digests | None,
    source_type: SourceType,
    reference: str,
    configuration: Mapping[str, Any] | None,
) -> list[OrderNote]:
    """Check that no other source has used up a credential whose tokens can be used only once.

    `configuration` is the whole one; None if the auth_broker is unavailable. Returns a note where
    another source may have: Airbyte does not report which tokens its syncs renew.

    Raises:
        Conflict: `credential_used_up`: a connector was seen renewing the token that it was given,
            and the store still has the old one.
        Unavailable: there is no configuration.
    """
    if configuration is None:
        raise Unavailable(
            "The auth_broker is unavailable. Nothing was recorded.", code="auth_broker_unavailable"
        )
    async with db.read() as session:
        uses = [
            use
            for use in await credential_queries.credential_uses(session, reference)
            if use.airbyte_source_id is not None and use.source_type == source_type.name
        ]
        sources = {use.airbyte_source_id for use in uses if use.airbyte_source_id is not None}
        renewed = await registry.renewed_sources(session, sources)
    now = {} if digests is None else digests.of(reference, configuration)
    same = [
        use
        for use in uses
        if any(
            name not in use.digests or name not in now or use.digests[name] == now[name]
            for name in source_type.renewed_fields
        )
    ]
    fields = " and ".join(sorted(source_type.renewed_fields))
    used_up = next((use for use in same if use.airbyte_source_id in renewed), None)
    if used_up is not None:
        raise Conflict(
            f"Credential {reference} is used by connection {used_up.connection_id}, whose "
            f"connector has renewed its {fields} since: the one in the store is no longer valid. "
            "Authorize again, store the new one under another credential id, and onboard with "
            "that.",
            code="credential_used_up",
            connection_id=used_up.connection_id,
        )
    if not same:
        return []
    return [
        OrderNote(
            "credential_shared",
            f"The source of connection {same[0].connection_id} uses the same credential. If each "
            f"{fields} is valid for one use, the first use invalidates it for the other: give each "
            "connection its own credential.",
        )
    ]


def merged(
    held: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    specified: Specification,
    changed: Collection[Pointer],
    dropped: Collection[Pointer],
    keep_secrets: bool,
) -> dict[str, Any]:
    """The new configuration of a source: what it holds, with what changed in the store.

    `held` is Airbyte's response, with its secrets masked. Sending a mask back means "unchanged",
    so a token that the connector has renewed is preserved. With `keep_secrets`, secrets that
    changed in the store are sent as masks too: Airbyte has them already. Where Airbyte would store
    the mask itself, the secret is sent.
    """

    def choose(pointer: Pointer, old: Any, new: Any) -> Any:
        if old == MASK:
            is_kept = keep_secrets or pointer not in changed
            return (
                MASK if is_kept and specification.is_restorable(specified, pointer, MASK) else new
            )
        return old if pointer not in changed and old is not specification.ABSENT else new

    return specification.overlaid(held, given, choose, dropped=dropped)
