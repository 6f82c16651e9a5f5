"""HTTP routes that list credentials by reference, and who read them; never a value."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from services.orchestrator import credential_list_queries
from services.orchestrator.credential_schemas import (
    READ,
    REFUSAL,
    CredentialPage,
    CredentialRead,
    RefusalView,
)
from shared import registry
from shared.auth.scopes import Scope, may
from shared.database import Database
from shared.errors import Invalid
from shared.http.dependencies import from_state
from shared.http.openapi import example
from shared.http.paging import AfterText, Limit, Page
from shared.http.problems import problems
from shared.http.responses import raw_json
from shared.registry import Position
from shared.source_types import CREDENTIAL_REFERENCE

router = APIRouter(tags=["credentials"])

Registry = Annotated[Database, from_state("db")]
_LARGEST_ID = 2**63 - 1


@router.get(
    "/credentials",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=CredentialPage,
    responses=problems(422, 503),
)
async def credentials(
    db: Registry,
    rejected: Annotated[
        bool | None,
        Query(
            description="`true`: only credentials that a source rejects; `false`: only the others"
        ),
    ] = None,
    after: Annotated[
        str | None,
        Query(
            max_length=200,
            pattern=CREDENTIAL_REFERENCE,
            description="`next` of the previous page",
            examples=["salesforce-prod"],
        ),
    ] = None,
    limit: Limit = 100,
) -> Response:
    """List the credentials that connections use, by reference, in alphabetical order.

    From the registry alone: no store is read, so a credential that no connection uses is not
    listed. Names and values of its fields are never part of the response.
    """
    async with db.read() as session:
        return raw_json(
            await credential_list_queries.page_of_credentials(
                session, is_rejected=rejected, after=after, limit=limit
            )
        )


@router.get(
    "/credential-reads",
    dependencies=[may(Scope.ADMIN)],
    response_model=Page[CredentialRead],
    responses={200: example({"items": [READ], "next": None}), **problems(422, 503)},
)
async def credential_reads(
    db: Registry,
    credential_id: Annotated[
        str | None, Query(pattern=CREDENTIAL_REFERENCE, examples=["salesforce-prod"])
    ] = None,
    reader: Annotated[
        str | None,
        Query(max_length=200, pattern=r"^[^\x00]*$", description="As listed: the whole name"),
    ] = None,
    after: AfterText = None,
    limit: Limit = 100,
) -> Response:
    """List who requested the values of which credential from the auth_broker, newest first.

    Refused requests are listed, too. AUDIT_RETENTION limits how far back the list reaches.
    """
    async with db.read() as session:
        return raw_json(
            await credential_list_queries.page_of_reads(
                session,
                credential_id=credential_id,
                reader=reader,
                after=_position(after),
                limit=limit,
            )
        )


@router.get(
    "/refusals",
    tags=["keys"],
    dependencies=[may(Scope.ADMIN)],
    response_model=Page[RefusalView],
    responses={200: example({"items": [REFUSAL], "next": None}), **problems(422, 503)},
)
async def refusals(
    db: Registry,
    caller: Annotated[
        str | None,
        Query(
            max_length=200,
            pattern=r"^[^\x00]*$",
            description="As listed: `key:ab12cd34` or `address:192.0.2.1`",
        ),
    ] = None,
    after: AfterText = None,
    limit: Limit = 100,
) -> Response:
    """List what the services refused to whom, counted by minute, newest minute first.

    `caller` is the id of a key, a token's subject or a service, or the address of a caller whose
    credentials are not valid. Each service lists 200 combinations an hour; what exceeds them is
    counted in one item of the caller `others` for each hour, status and code. Counts are up to
    ten seconds old. REFUSAL_RETENTION limits how far back the list reaches.
    """
    async with db.read() as session:
        return raw_json(
            await registry.page_of_refusals(
                session, caller=caller, after=_position(after), limit=limit
            )
        )


def _position(after: str | None) -> Position | None:
    """The position that a cursor is for.

    Raises:
        Invalid: it is not a cursor of this list.
    """
    if not after:
        return None
    position = registry.read_position(after)
    is_number = position[1].isascii() and position[1].isdigit()
    if not is_number or int(position[1]) > _LARGEST_ID:
        raise Invalid("`after` is not a cursor of this list.", code="invalid_cursor")
    return position
