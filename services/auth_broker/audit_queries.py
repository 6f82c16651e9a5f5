"""Who read which credential, when; never the value."""

from __future__ import annotations

from sqlalchemy import CursorResult
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.models import CredentialRead


async def record_credential_read(
    session: AsyncSession,
    *,
    caller: str,
    token_id: str,
    credential_id: str,
    source_type: str,
    result: str,
    request_id: str,
) -> bool:
    """Write down who asked for a credential and what was answered; False for a token known already.

    It needs no right but to insert: what was written is not for its writer to read.
    """
    written: CursorResult[tuple[()]] = await session.execute(  # type: ignore[assignment]
        insert(CredentialRead)
        .values(
            caller=caller,
            jti=token_id,
            credential_id=credential_id,
            source_type=source_type,
            result=result,
            request_id=request_id,
        )
        .on_conflict_do_nothing()
        .inline()
    )
    return written.rowcount == 1
