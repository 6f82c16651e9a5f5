"""What the gate refused: counted rows, of which a service writes a limited number an hour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.registry.paging import Position, after_position, page, stamp

MOST_ROWS: Final = 200
"""New rows of one service and hour, of all replicas together."""
OTHERS: Final = "others"
"""The caller of the rows that count what would exceed it."""
ADDRESS: Final = "address:"
"""What callers begin with that are not known; these have at most half of the rows."""


class Refused(NamedTuple):
    """What is counted together."""

    minute: datetime
    caller: str
    method: str
    route: str
    status: int
    code: str


@dataclass(slots=True)
class Count:
    """How often, and when first and last."""

    count: int
    first_at: datetime
    last_at: datetime

    def add(self, other: Count) -> None:
        """Add what was counted elsewhere."""
        self.count += other.count
        self.first_at = min(self.first_at, other.first_at)
        self.last_at = max(self.last_at, other.last_at)


def among_others(refused: Refused) -> Refused:
    """The row that counts a refusal for which there is no room."""
    hour = refused.minute.replace(minute=0)
    return Refused(hour, OTHERS, "-", "-", refused.status, refused.code)


async def add_refusals(
    session: AsyncSession, service: str, counts: Mapping[Refused, Count]
) -> None:
    """Add counts to a service's rows. The replicas of a service do this one after the other."""
    await session.execute(_ALONE, {"service": service})
    known = await session.execute(_KNOWN, {"service": service, "since": _hour(counts)})
    rows = _Rows()
    for row in known:
        rows.add(Refused(*row))
    merged: dict[Refused, Count] = {}
    for refused, count in counts.items():
        kept = refused if rows.have_room(refused) else among_others(refused)
        rows.add(kept)
        if kept in merged:
            merged[kept].add(count)
        else:
            merged[kept] = Count(count.count, count.first_at, count.last_at)
    given: list[dict[str, Any]] = [
        {**refused._asdict(), "count": one.count, "first_at": one.first_at, "last_at": one.last_at}
        for refused, one in merged.items()
    ]
    await session.execute(_ADD, {"service": service, "rows": msgspec.json.encode(given).decode()})


def _hour(counts: Mapping[Refused, Count]) -> datetime:
    return min(refused.minute for refused in counts).replace(minute=0)


class _Rows:
    """A service's rows, and how many of them each hour has."""

    def __init__(self) -> None:
        self._rows: set[Refused] = set()
        self._of_hour: Counter[datetime] = Counter()
        self._of_addresses: Counter[datetime] = Counter()

    def add(self, refused: Refused) -> None:
        """Add a row, unless it is there."""
        if refused in self._rows:
            return
        self._rows.add(refused)
        hour = refused.minute.replace(minute=0)
        self._of_hour[hour] += refused.caller != OTHERS
        self._of_addresses[hour] += refused.caller.startswith(ADDRESS)

    def have_room(self, refused: Refused) -> bool:
        """Whether it is there, or its hour has room for it; half of that is for known callers."""
        if refused in self._rows:
            return True
        hour = refused.minute.replace(minute=0)
        if refused.caller.startswith(ADDRESS) and self._of_addresses[hour] >= MOST_ROWS // 2:
            return False
        return self._of_hour[hour] < MOST_ROWS


async def page_of_refusals(
    session: AsyncSession, *, caller: str | None, after: Position | None, limit: int
) -> str:
    """A page of what was refused as JSON text, newest minute first.

    The id of `after` is a number.
    """
    conditions = []
    parameters: dict[str, object] = {"limit": limit}
    if caller is not None:
        conditions.append("t.caller = :caller")
        parameters["caller"] = caller
    if after is not None:
        conditions.append(after_position("t.minute", "t.id"))
        parameters |= {"after_at": after[0], "after_id": int(after[1])}
    statement = page("refusals", _VIEW, " AND ".join(conditions) or "true", at="minute")
    found: str = await session.scalar(statement, parameters)
    return found


_VIEW = f"""json_build_object(
    'minute', {stamp("t.minute")}, 'service', t.service, 'caller', t.caller, 'method', t.method,
    'route', t.route, 'status', t.status, 'code', t.code, 'count', t.count,
    'first_at', {stamp("t.first_at")}, 'last_at', {stamp("t.last_at")}
)"""
_ALONE = text("SELECT pg_advisory_xact_lock(hashtext('aam refusals ' || :service))")
_KNOWN = text("""
    SELECT minute, caller, method, route, status, code FROM refusals
    WHERE service = :service AND minute >= :since
""")
_ADD = text("""
    INSERT INTO refusals AS r
        (minute, service, caller, method, route, status, code, count, first_at, last_at)
    SELECT n.minute, :service, n.caller, n.method, n.route, n.status, n.code, n.count, n.first_at,
        n.last_at
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS n(
        minute timestamptz, caller text, method text, route text, status integer, code text,
        count bigint, first_at timestamptz, last_at timestamptz
    )
    ON CONFLICT (minute, service, caller, method, route, status, code) DO UPDATE SET
        count = r.count + excluded.count, first_at = least(r.first_at, excluded.first_at),
        last_at = greatest(r.last_at, excluded.last_at)
""")
