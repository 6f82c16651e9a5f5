"""Read and update a connection's policy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import msgspec

from services.drift_repair_agent.repairs import queries
from services.drift_repair_agent.repairs.policy import DEFAULT, Policy, authored, changed
from services.drift_repair_agent.repairs.schemas import PolicyOrder, PolicyView
from shared import registry
from shared.auth import scopes
from shared.database import Database
from shared.errors import Invalid
from shared.http.validation import unknown
from shared.job_queue import Jobs


class Policies:
    """Reads and updates connection policies in the registry."""

    def __init__(self, db: Database, jobs: Jobs) -> None:
        self._db = db
        self._jobs = jobs

    async def view(self, connection_id: UUID) -> PolicyView:
        """The policy in effect.

        Raises:
            NotFound: there is no such connection.
        """
        async with self._db.read() as session:
            await registry.find_connection(session, connection_id)
            stored = await registry.find_policy(session, connection_id)
        policy = Policy.of(stored)
        return PolicyView(
            connection_id=connection_id,
            reactions=policy.reactions,
            never_select=list(policy.never_select),
            verify=policy.verify,
            rename_min_confidence=policy.rename_min_confidence,
            discoveries_per_day=policy.discoveries_per_day,
            on_suspicious_volume=policy.on_suspicious_volume,
            credentials=policy.credentials,
            continuity=policy.continuity,
            own=msgspec.to_builtins(policy.own),
            updated_by=None if stored is None else stored.updated_by,
            requested_by=None if stored is None else stored.requested_by,
            updated_at=None if stored is None else stored.updated_at,
        )

    async def put(self, connection_id: UUID, order: PolicyOrder) -> PolicyView:
        """Update the given parts of the policy; open proposals are planned again by it.

        Raises:
            NotFound: there is no such connection.
            NotActive: it is archived.
            Invalid: the matrix has no such entry, or the request names nothing to change.
        """
        for entity, whats in order.reactions.items():
            if entity not in DEFAULT:
                raise _unknown_entry(["reactions"], entity, list(DEFAULT))
            for what in whats:
                if what not in DEFAULT[entity]:
                    raise _unknown_entry(["reactions", entity], what, list(DEFAULT[entity]))
        request = order.model_dump(mode="json", exclude_unset=True, exclude={"by"})
        async with self._db.transaction() as session:
            row = await registry.lock_connection(session, connection_id)
            if request.keys() <= {"reactions"} and not any(order.reactions.values()):
                raise Invalid("The request contains no change.", code="empty_policy")
            before = Policy.of(await registry.find_policy(session, connection_id))
            new = changed(before.own, request)
            if new != before.own:
                authors = authored(before.authors, before.own, new, scopes.shown(order.by))
                await queries.put_policy(
                    session,
                    row.id,
                    msgspec.json.encode(new).decode(),
                    authors=msgspec.json.encode(authors).decode(),
                    by=order.by,
                )
                await registry.record_setting_change(
                    session, "policy", row.id, request, by=order.by
                )
                await queries.forget_plan(session, row.id)
                await self._jobs.enqueue(session, "plan", str(row.id), after=timedelta(0))
        return await self.view(connection_id)


def _unknown_entry(place: Sequence[str], name: str, known: Sequence[str]) -> Invalid:
    shown, message = unknown("policy entry", name, known)
    if shown:
        message = f"{message} Known entries: {', '.join(known)}"
    field = ".".join(["body", *place, *([shown] if shown else [])])
    fault = {"field": field, "type": "unknown_policy_entry", "message": message}
    return Invalid(f"{field}: {message}.", code="unknown_policy_entry", fields=[fault])
