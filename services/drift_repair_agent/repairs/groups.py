"""One decision about several repairs, carried out for each on its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from services.drift_repair_agent.repairs import group_queries
from services.drift_repair_agent.repairs.decisions import Repairs
from services.drift_repair_agent.repairs.group_queries import Member
from services.drift_repair_agent.repairs.group_schemas import (
    MOST_DECIDED,
    Decided,
    DecidedSeveral,
    DecideSeveral,
)
from services.drift_repair_agent.repairs.schemas import Approve, Decide
from shared import batches
from shared.airbyte_reads import airbyte_deadline
from shared.errors import AamError, Invalid, NotFound
from shared.operations import HttpResult, Intent, Key, Operations

_MAX_CONCURRENCY = 4


def read_position(after: str) -> tuple[int, str]:
    """Decode the `next` of a page of groups.

    Raises:
        Invalid: it is not one.
    """
    count, _, group_id = after.partition("-")
    if not (count.isascii() and count.isdecimal() and len(count) < 10 and group_id.isalnum()):
        raise Invalid("`after` is not a cursor of this list.", code="invalid_cursor")
    return int(count), group_id


async def decide(
    operations: Operations, repairs: Repairs, order: DecideSeveral, *, key: Key | None
) -> DecidedSeveral:
    """Approve or reject several repairs; an item that fails does not stop the others.

    With a key, a group is resolved once, and repeating the request only decides what failed.

    Raises:
        Invalid: the request names both repairs and a group, or neither.
        NotFound: no repair with the group's change waits for a decision.
        KeyReused: the key was used for a different request.
    """
    if (order.repairs is None) is (order.group is None):
        raise Invalid("Name either `repairs` or a `group`.", code="repairs_or_group")
    if order.choice is not None and (order.group is None or order.verdict == "reject"):
        raise Invalid.of(
            "choice", "A choice is for the change of an approved group.", code="choice_not_used"
        )
    deadline = airbyte_deadline()
    members = await _members(operations, order, key)

    async def one(member: Member) -> Decided:
        answer = await _decide(repairs, order, member, _own(key, member.repair_id), deadline)
        repair = msgspec.json.decode(answer.body)
        return Decided(repair_id=member.repair_id, decided_id=repair["id"], state=repair["state"])

    outcomes = await batches.each(
        members,
        one,
        log_event="repair_not_decided",
        fields=lambda member: {"repair": str(member.repair_id)},
        max_concurrency=_MAX_CONCURRENCY,
    )
    return DecidedSeveral(
        items=[outcome.result or _failed(outcome.item, outcome.error) for outcome in outcomes]
    )


async def _members(
    operations: Operations, order: DecideSeveral, key: Key | None
) -> Sequence[Member]:
    """The repairs to decide; those of the first request with this key."""

    async def write(session: AsyncSession) -> HttpResult:
        found: Sequence[Member]
        if order.group is None:
            found = [Member(one) for one in dict.fromkeys(order.repairs or ())]
        else:
            found = await group_queries.members(session, order.group, limit=MOST_DECIDED)
        if not found:
            raise NotFound(f"No repair of group {order.group} waits for a decision.")
        return HttpResult(200, msgspec.json.encode(found).decode())

    request = order.model_dump(mode="json", exclude_unset=True)
    recorded = await operations.at_once(Intent("decide", None, request, key=key), write)
    return msgspec.json.decode(recorded.body, type=list[Member])


async def _decide(
    repairs: Repairs, order: DecideSeveral, member: Member, key: Key | None, deadline: float
) -> HttpResult:
    changes = None if member.change_id is None else [member.change_id]
    if order.verdict == "reject":
        request = Decide(by=order.by, reason=order.reason, changes=changes)
        return await repairs.reject(member.repair_id, request, key=key)
    choices = {} if order.choice is None or not changes else {changes[0]: order.choice}
    approval = Approve(by=order.by, reason=order.reason, changes=changes, choices=choices)
    return await repairs.approve(
        member.repair_id, approval, key=key, wait=0, airbyte_deadline=deadline
    )


def _own(key: Key | None, repair_id: UUID) -> Key | None:
    """The key of one item of a request with this key."""
    if key is None:
        return None
    digest = hashlib.blake2b(f"{key.key} {repair_id}".encode(), digest_size=16).hexdigest()
    return replace(key, key=digest, route=f"{key.route} item")


def _failed(member: Member, error: Exception | None) -> Decided:
    code = batches.code_of(error or RuntimeError())
    message = error.detail if isinstance(error, AamError) else "Internal error."
    return Decided(repair_id=member.repair_id, code=code, message=message)
