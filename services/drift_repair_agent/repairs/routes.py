"""The routes of repairs: list, decide, roll back, plan again, and policies."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response

from services.drift_repair_agent.applying.dry_run import DryRun, Rehearsed
from services.drift_repair_agent.repairs import queries
from services.drift_repair_agent.repairs.decisions import Repairs
from services.drift_repair_agent.repairs.planner import Planner
from services.drift_repair_agent.repairs.policy_preview import PolicyPreview, previewed
from services.drift_repair_agent.repairs.policy_store import Policies
from services.drift_repair_agent.repairs.schemas import (
    Approve,
    ChangePage,
    Decide,
    PolicyOrder,
    PolicyView,
    RepairCounts,
    RepairDetail,
    RepairPage,
    RepairView,
    RollBack,
    Unchanged,
)
from shared import registry
from shared.auth.scopes import Scope, may
from shared.database import Database
from shared.domain.drift import Severity
from shared.http.dependencies import from_state
from shared.http.openapi import links
from shared.http.operation_routes import GivenKey, Wait, answered
from shared.http.paging import After, Limit
from shared.http.problems import problems
from shared.http.responses import raw_json
from shared.http.setting_history import HistoryPage, SettingHistory
from shared.http.timestamps import Timestamp
from shared.models import RepairState

router = APIRouter(tags=["repairs"])


Decisions = Annotated[Repairs, from_state("repairs")]


Plans = Annotated[Planner, from_state("planner")]


PolicyStore = Annotated[Policies, from_state("policies")]


Registry = Annotated[Database, from_state("db")]


_WAITS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": RepairView | DryRun,
        "description": "Decided and finished; with `dry_run`, what it would do",
    },
    202: {
        "model": RepairView,
        "description": "Decided and in progress; GET /repairs/{repair_id} reports its state",
    },
}


@router.get(
    "/repairs",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=RepairPage,
    responses={
        200: links(
            "GET /repairs/{repair_id}",
            "GET /repairs/{repair_id}/changes",
            "POST /repairs/{repair_id}/approve",
            "POST /repairs/{repair_id}/reject",
            repair_id="$response.body#/items/0/id",
        ),
        **problems(422, 503),
    },
)
async def repairs(
    db: Registry,
    state: Annotated[list[RepairState] | None, Query()] = None,
    severity: Annotated[
        list[Severity] | None, Query(description="The severity of the most severe change")
    ] = None,
    expires_before: Annotated[
        Timestamp | None, Query(description="Only proposals that expire before this time")
    ] = None,
    connection_id: Annotated[UUID | None, Query()] = None,
    after: After = None,
    limit: Limit = 100,
) -> Response:
    """List repairs, newest first; those with `state=proposed` wait for a decision.

    Each repair has the counts of its changes and the first three of them. GET /repairs/{repair_id}
    has all changes, GET /repairs/{repair_id}/changes a page of them.
    """
    shown = queries.RepairFilter(
        connection_id=connection_id,
        states=state or (),
        severities=severity or (),
        expires_before=expires_before,
        after=after,
    )
    async with db.read() as session:
        return raw_json(await queries.page_of_repairs(session, shown, limit=limit))


@router.get(
    "/repairs/summary",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=RepairCounts,
    responses=problems(503),
)
async def repair_counts(db: Registry) -> Response:
    """Count the repairs that have not ended, by state, and the proposals by severity.

    Ended repairs are not counted, so that the cost does not grow with the history.
    """
    async with db.read() as session:
        return raw_json(await queries.counts_of_open_repairs(session))


@router.get(
    "/repairs/{repair_id}",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=RepairDetail,
    responses=problems(404, 503),
)
async def repair(repair_id: UUID, repairs: Decisions) -> Response:
    """Get one repair: its changes, what each destroys or resets, and the catalog difference."""
    return raw_json(await repairs.previews.view(repair_id))


@router.get(
    "/repairs/{repair_id}/changes",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=ChangePage,
    responses=problems(404, 422, 503),
)
async def changes(
    repair_id: UUID,
    db: Registry,
    limit: Limit = 100,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="`next` of the previous page")] = 0,
) -> Response:
    """List the changes of one repair, with the reaction to and the decision about each."""
    async with db.read() as session:
        return raw_json(await queries.page_of_changes(session, repair_id, after=after, limit=limit))


@router.post(
    "/repairs/{repair_id}/approve",
    dependencies=[may(Scope.REPAIRS_DECIDE)],
    response_model=RepairView | DryRun,
    responses={**_WAITS, **problems(400, 404, 409, 422, 503, 504)},
)
async def approve(
    repair_id: UUID,
    order: Approve,
    repairs: Decisions,
    key: GivenKey,
    wait: Wait,
    dry_run: Rehearsed = False,
) -> Response:
    """Approve a repair or some of its changes; it is applied once no sync is running.

    With `changes`, these are split off into a repair of their own, which is returned; the rest
    stays open under the original id. A removed field is treated as renamed if the suggestion says
    `taken_by_approve`; a weaker suggestion must be named in `choices`, otherwise the field is
    removed and the new one is a separate addition. 409 `stale_plan`: the catalog or the source has
    changed; `newer` is the repair that replaced this one. 409 `not_proposed`: the repair is decided
    already, or has ended. 409 `global_state`: it selects streams again that would miss changes;
    `on_global_state` is the choice.

    If the policy has two callers approve (`two_approvals_from`), the first approval is recorded in
    `decisions`, and the repair stays `proposed` until another caller approves the same changes with
    the same choices. 409 `same_approver`: the first approval is by the same caller.

    If Airbyte does not answer within ten seconds, the response is 202 with the approved repair,
    which is applied later; or 503, and nothing is recorded, if the approval depends on what Airbyte
    would answer: for streams that are selected again, and columns that are kept.

    With `dry_run`, nothing is recorded or changed: the response has the difference between the
    catalogs, the effects, and what the repair would wait for. A request that would be refused gets
    the same error.
    """
    if dry_run:
        return raw_json((await repairs.dry_run_approve(repair_id, order)).model_dump_json())
    return answered(await repairs.approve(repair_id, order, key=key, wait=wait))


@router.post(
    "/repairs/{repair_id}/reject",
    dependencies=[may(Scope.REPAIRS_DECIDE)],
    response_model=RepairView,
    responses=problems(400, 404, 409, 422, 503, 504),
)
async def reject(repair_id: UUID, order: Decide, repairs: Decisions, key: GivenKey) -> Response:
    """Reject a repair or some of its changes; they are not applied.

    A connection that is paused because of them stays paused.
    """
    return answered(await repairs.reject(repair_id, order, key=key))


@router.post(
    "/connections/{connection_id}/rollback",
    dependencies=[may(Scope.CATALOGS_HEAL)],
    response_model=RepairView | Unchanged | DryRun,
    responses={
        **_WAITS,
        200: {
            "model": RepairView | Unchanged | DryRun,
            "description": "Finished, or already in effect; with `dry_run`, what it would do",
        },
        **problems(400, 404, 409, 422, 503, 504),
    },
)
async def roll_back(
    connection_id: UUID,
    order: RollBack,
    repairs: Decisions,
    key: GivenKey,
    wait: Wait,
    dry_run: Rehearsed = False,
) -> Response:
    """Roll back to an older catalog version, which is appended as the newest one.

    409 `rollback_impossible` if the source no longer has what that version needs; `problems` lists
    what is missing. The changes that it undoes are not applied again without a person. 409
    `global_state`: as for an approval, and so is what happens if Airbyte does not answer.

    With `dry_run`, nothing is recorded or changed: the response has the difference between the
    catalogs and the effects. A stream whose sync state cannot be put back is read from its start;
    its effect says why, and what its last full read took, if that is known.
    """
    if dry_run:
        return raw_json((await repairs.dry_run_roll_back(connection_id, order)).model_dump_json())
    return answered(await repairs.roll_back(connection_id, order, key=key, wait=wait))


@router.post(
    "/connections/{connection_id}/plan",
    dependencies=[may(Scope.CONNECTIONS_WRITE)],
    response_model=RepairPage,
    responses=problems(404, 409, 422, 503, 504),
)
async def plan(connection_id: UUID, planner: Plans, db: Registry) -> Response:
    """Plan repairs again now; changes that expired or were rejected are proposed again.

    Returns the repairs of the connection that are open afterwards. There is nothing to plan if the
    source has not changed since the connection was created.
    """
    await planner.again(connection_id)
    shown = queries.RepairFilter(connection_id=connection_id, states=queries.OPEN_STATES)
    async with db.read() as session:
        return raw_json(await queries.page_of_repairs(session, shown, limit=10))


@router.get(
    "/connections/{connection_id}/policy",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    responses=problems(404, 422, 503),
)
async def policy(
    connection_id: UUID,
    policies: PolicyStore,
    explain: Annotated[bool, Query(description="Say which layer each value comes from")] = False,
) -> PolicyView:
    """Get the policy in effect: what may happen to the connection without a person's decision.

    For each value, the nearest layer that sets it applies: the connection, its labels, its source
    type, the installation, and then the default. The patterns of `never_select` are merged.
    """
    return await policies.view(connection_id, explain=explain)


@router.put(
    "/connections/{connection_id}/policy",
    dependencies=[may(Scope.REPAIRS_DECIDE)],
    responses=problems(404, 409, 422, 503),
)
async def put_policy(connection_id: UUID, order: PolicyOrder, policies: PolicyStore) -> PolicyView:
    """Change the given parts of the connection's own policy; null removes an entry.

    Open proposals are planned again by the new policy. Requires the scope that decides repairs,
    since a policy decides without a person. A request that names nothing is rejected with 422
    `empty_policy`.
    """
    return await policies.put(connection_id, order)


@router.post(
    "/connections/{connection_id}/policy/preview",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    responses=problems(404, 422, 503),
)
async def preview_policy(
    connection_id: UUID,
    order: PolicyOrder,
    db: Registry,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=20, description="Maximum number of drifts")] = 20,
) -> PolicyPreview:
    """Preview a change of the connection's policy on its newest drifts; nothing is changed.

    The body is that of PUT. For each change of a drift, the response has the reaction of the policy
    in effect and of the previewed one. What depended on the connection at that time is left out,
    and each may have AAM propose a change that is shown as applied: names nested in a field, the
    column of a renamed field (`continuity`), mappers, a global state, limits of the destination,
    and earlier rejections.
    """
    return await previewed(db, connection_id, order, after=after, limit=limit)


@router.get(
    "/connections/{connection_id}/policy/history",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=SettingHistory,
    responses=problems(404, 422, 503),
)
async def policy_history(connection_id: UUID, db: Registry, page: HistoryPage) -> Response:
    """List who changed the connection's policy, when and how, newest first."""
    async with db.read() as session:
        await registry.find_connection(session, connection_id)
        return await page.of(session, "policy", connection_id)
