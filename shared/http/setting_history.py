"""The history of a setting over HTTP: who changed it, when and how."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncSession

from shared import registry
from shared.http.paging import Limit
from shared.http.responses import raw_json

_CHANGE: dict[str, Any] = {
    "at": "2026-11-24T09:30:00.123456Z",
    "by": "Ada",
    "requested_by": "ada@example.com (key ab12cd34)",
    "change": {"reactions": {"field": {"added": "propose"}}},
}


class SettingChangeView(BaseModel):
    """One change of a setting, as it was requested."""

    model_config = ConfigDict(json_schema_extra={"examples": [_CHANGE]})

    at: datetime
    by: str
    requested_by: str | None = None
    """Whose credentials requested it."""
    change: dict[str, Any]


class SettingHistory(BaseModel):
    """Changes, newest first; `next` is the next page's `after`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [_CHANGE], "next": None}]})

    items: list[SettingChangeView]
    next: str | None = None


class _Page:
    """Which page of a history a request asks for."""

    def __init__(
        self,
        limit: Limit = 100,
        after: Annotated[
            int | None, Query(ge=1, le=2**63 - 1, description="`next` of the previous page")
        ] = None,
    ) -> None:
        self._limit = limit
        self._after = after

    async def of(
        self, session: AsyncSession, subject: registry.SettingSubject, subject_id: UUID
    ) -> Response:
        """The page of this setting's history."""
        return raw_json(
            await registry.setting_history_json(
                session, subject, subject_id, limit=self._limit, after=self._after
            )
        )


HistoryPage = Annotated[_Page, Depends()]
