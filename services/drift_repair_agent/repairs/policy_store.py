"""Read and update the policies of connections, and the layers above them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from services.drift_repair_agent.repairs import layer_queries, queries
from services.drift_repair_agent.repairs.layer_queries import Place
from services.drift_repair_agent.repairs.layer_schemas import LayerView, explained
from services.drift_repair_agent.repairs.policy import (
    DEFAULT,
    Policy,
    PolicyOverrides,
    authored,
    changed,
)
from services.drift_repair_agent.repairs.schemas import PolicyOrder, PolicyView
from shared import registry
from shared.auth import scopes
from shared.database import Database
from shared.domain.policy_layers import LayeredPolicy, PolicyLayer
from shared.errors import Invalid
from shared.http.validation import unknown
from shared.job_queue import Jobs


class Policies:
    """Reads and updates policies in the registry."""

    def __init__(self, db: Database, jobs: Jobs) -> None:
        self._db = db
        self._jobs = jobs

    async def view(self, connection_id: UUID, *, explain: bool = False) -> PolicyView:
        """The policy in effect; with `explain`, which layer each of its values comes from.

        Raises:
            NotFound: there is no such connection.
        """
        async with self._db.read() as session:
            await registry.find_connection(session, connection_id)
            stored = await registry.find_policy(session, connection_id)
        policy, own = Policy.of(stored), stored.own
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
            sync_after_heal=policy.sync_after_heal,
            two_approvals_from=policy.two_approvals_from,
            own={} if own is None else dict(own.settings),
            updated_by=None if own is None else own.updated_by,
            requested_by=None if own is None else own.requested_by,
            updated_at=None if own is None else own.updated_at,
            explanation=explained(policy, stored) if explain else None,
        )

    async def put(self, connection_id: UUID, order: PolicyOrder) -> PolicyView:
        """Update the given parts of the policy; open proposals are planned again by it.

        Raises:
            NotFound: there is no such connection.
            NotActive: it is archived.
            Invalid: the matrix has no such entry, or the request names nothing to change.
        """
        expect_known(order)
        request = order.model_dump(mode="json", exclude_unset=True, exclude={"by"})
        async with self._db.transaction() as session:
            row = await registry.lock_connection(session, connection_id)
            expect_change(order)
            before = (await registry.find_policy(session, connection_id)).own
            update = _updated(before, order)
            if update is not None:
                await layer_queries.put_policy(
                    session, row.id, update.policy, authors=update.authors, by=order.by
                )
                await registry.record_setting_change(
                    session, "policy", row.id, request, by=order.by
                )
                await queries.forget_plan(session, row.id)
                await self._jobs.enqueue(session, "plan", str(row.id), after=timedelta(0))
        return await self.view(connection_id)

    async def layer(self, place: Place) -> LayerView:
        """The entries of a layer above connections; none if it was never set."""
        async with self._db.read() as session:
            layer = await layer_queries.find_layer(session, place)
        return _view_of(layer)

    async def put_layer(self, place: Place, order: PolicyOrder) -> LayerView:
        """Update the given parts of a layer; the connections that it applies to are planned again.

        Raises:
            Invalid: the matrix has no such entry, or the request names nothing to change.
        """
        expect_known(order)
        expect_change(order)
        async with self._db.transaction() as session:
            await registry.lock_policy_layers(session, exclusive=True)
            before = await layer_queries.find_layer(session, place)
            update = _updated(before, order)
            if update is not None:
                await layer_queries.put_layer(
                    session, place, update.policy, authors=update.authors, by=order.by
                )
                request = order.model_dump(mode="json", exclude_unset=True, exclude={"by"})
                await self._changed(session, place, request, by=order.by)
        return await self.layer(place)

    async def delete_layer(self, place: Place) -> None:
        """Delete a layer, if it is set; the connections that it applied to are planned again."""
        async with self._db.transaction() as session:
            await registry.lock_policy_layers(session, exclusive=True)
            if await layer_queries.delete_layer(session, place):
                await self._changed(session, place, {"deleted": True}, by=None)

    async def _changed(
        self, session: AsyncSession, place: Place, change: Mapping[str, Any], *, by: str | None
    ) -> None:
        await registry.record_setting_change(
            session,
            "policy_layer",
            registry.POLICY_LAYERS,
            {"layer": place._asdict(), **change},
            by=by,
        )
        waiting = await layer_queries.forget_plans(session, place)
        await self._jobs.enqueue_many(
            session, "plan", [str(one) for one in waiting], after=timedelta(0)
        )


@dataclass(frozen=True, slots=True)
class _Update:
    """What is written of a changed layer, as JSON text."""

    policy: str
    authors: str


def _updated(before: PolicyLayer | None, order: PolicyOrder) -> _Update | None:
    """The layer after a request; None if it changes nothing."""
    request = order.model_dump(mode="json", exclude_unset=True, exclude={"by"})
    old = msgspec.convert({} if before is None else before.settings, type=PolicyOverrides)
    new = changed(old, request)
    if new == old:
        return None
    were = {} if before is None else LayeredPolicy((before,)).authors()
    authors = authored(were, old, new, scopes.shown(order.by))
    return _Update(msgspec.json.encode(new).decode(), msgspec.json.encode(authors).decode())


def _view_of(layer: PolicyLayer) -> LayerView:
    return LayerView(
        level=layer.level,
        name=layer.name or None,
        value=layer.value or None,
        policy=dict(layer.settings),
        updated_by=layer.updated_by,
        requested_by=layer.requested_by,
        updated_at=layer.updated_at,
    )


def expect_change(order: PolicyOrder) -> None:
    """Check that a request names something to change.

    Raises:
        Invalid: it does not.
    """
    if order.model_fields_set <= {"reactions", "by"} and not any(order.reactions.values()):
        raise Invalid("The request contains no change.", code="empty_policy")


def expect_known(order: PolicyOrder) -> None:
    """Check that a request names only entries of the matrix.

    Raises:
        Invalid: it names another.
    """
    for entity, whats in order.reactions.items():
        if entity not in DEFAULT:
            raise _unknown_entry(["reactions"], entity, list(DEFAULT))
        for what in whats:
            if what not in DEFAULT[entity]:
                raise _unknown_entry(["reactions", entity], what, list(DEFAULT[entity]))


def _unknown_entry(place: Sequence[str], name: str, known: Sequence[str]) -> Invalid:
    shown, message = unknown("policy entry", name, known)
    if shown:
        message = f"{message} Known entries: {', '.join(known)}"
    field = ".".join(["body", *place, *([shown] if shown else [])])
    fault = {"field": field, "type": "unknown_policy_entry", "message": message}
    return Invalid(f"{field}: {message}.", code="unknown_policy_entry", fields=[fault])
