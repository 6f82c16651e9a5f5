"""Records of who read which credential, and when; never the value."""

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
    """Record who requested a credential, and the result; False for a token that was used before.

    It needs only the INSERT privilege: the writer must not be able to read the audit table.
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
