"""The routes of the policies above connections: the installation's, source types' and labels'."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Response

from services.drift_repair_agent.repairs import layer_queries
from services.drift_repair_agent.repairs.layer_queries import Place
from services.drift_repair_agent.repairs.layer_schemas import LayerPage, LayerView
from services.drift_repair_agent.repairs.policy_store import Policies
from services.drift_repair_agent.repairs.schemas import PolicyOrder
from shared import registry
from shared.auth.scopes import Scope, may
from shared.database import Database
from shared.errors import Invalid
from shared.http.dependencies import from_state
from shared.http.paging import After, Limit
from shared.http.problems import problems
from shared.http.responses import raw_json
from shared.http.setting_history import HistoryPage, SettingHistory
from shared.http.strict_json import Name

router = APIRouter(tags=["policies"])

PolicyStore = Annotated[Policies, from_state("policies")]
Registry = Annotated[Database, from_state("db")]
_INSTALLATION = Place("installation")


def _of_source_type(source_type: Name) -> Place:
    _refuse_slash_at_end(source_type)
    return Place("source_type", source_type)


def _of_label(
    label: Annotated[Name, Path(description="The label's name and value: `team=sales`")],
) -> Place:
    """The layer of a label.

    Raises:
        Invalid: it is not a name and a value.
    """
    _refuse_slash_at_end(label)
    name, _, value = label.partition("=")
    if not name or not value:
        raise Invalid("The label must be a name and a value: `team=sales`.", code="invalid_label")
    return Place("label", name, value)


def _refuse_slash_at_end(value: str) -> None:
    """Refuse a path with a slash at its end, as every route does; a slash within it is allowed.

    Raises:
        HTTPException: 404.
    """
    if value.endswith("/"):
        raise HTTPException(404)


OfSourceType = Annotated[Place, Depends(_of_source_type)]
OfLabel = Annotated[Place, Depends(_of_label)]


@router.get(
    "/policies",
    dependencies=[may(Scope.CONNECTIONS_READ, spans_installation=True)],
    response_model=LayerPage,
    responses=problems(422, 503),
)
async def layers(db: Registry, after: After = None, limit: Limit = 100) -> Response:
    """List the policies that are set above connections, newest first.

    For each value of a connection's policy, the nearest layer that sets it applies: the connection,
    its labels, its source type, the installation, and then the default.
    """
    async with db.read() as session:
        return raw_json(await layer_queries.page_of_layers(session, limit=limit, after=after))


@router.get(
    "/policies/history",
    dependencies=[may(Scope.CONNECTIONS_READ, spans_installation=True)],
    response_model=SettingHistory,
    responses=problems(422, 503),
)
async def layers_history(db: Registry, page: HistoryPage) -> Response:
    """List who changed which policy above connections, when and how, newest first."""
    async with db.read() as session:
        return await page.of(session, "policy_layer", registry.POLICY_LAYERS)


@router.get(
    "/policies/installation",
    dependencies=[may(Scope.CONNECTIONS_READ, spans_installation=True)],
    responses=problems(422, 503),
)
async def installation_policy(policies: PolicyStore) -> LayerView:
    """Get the policy entries that are set for the installation; empty if there are none."""
    return await policies.layer(_INSTALLATION)


@router.put(
    "/policies/installation",
    dependencies=[may(Scope.REPAIRS_DECIDE, spans_installation=True)],
    responses=problems(422, 503),
)
async def put_installation_policy(order: PolicyOrder, policies: PolicyStore) -> LayerView:
    """Change the given parts of the policy of the installation; null removes an entry.

    It applies to every connection, except for values that a nearer layer sets.
    Only here, `never_select` replaces the default patterns.
    """
    return await policies.put_layer(_INSTALLATION, order)


@router.delete(
    "/policies/installation",
    status_code=204,
    dependencies=[may(Scope.REPAIRS_DECIDE, spans_installation=True)],
    responses=problems(422, 503),
)
async def delete_installation_policy(policies: PolicyStore) -> None:
    """Delete the policy entries of the installation; the defaults apply again."""
    await policies.delete_layer(_INSTALLATION)


@router.get(
    "/policies/source-types/{source_type:path}",
    dependencies=[may(Scope.CONNECTIONS_READ, spans_installation=True)],
    responses=problems(404, 422, 503),
)
async def source_type_policy(place: OfSourceType, policies: PolicyStore) -> LayerView:
    """Get the policy entries that are set for a source type; empty if there are none."""
    return await policies.layer(place)


@router.put(
    "/policies/source-types/{source_type:path}",
    dependencies=[may(Scope.REPAIRS_DECIDE, spans_installation=True)],
    responses=problems(404, 422, 503),
)
async def put_source_type_policy(
    place: OfSourceType, order: PolicyOrder, policies: PolicyStore
) -> LayerView:
    """Change the given parts of the policy of a source type; null removes an entry.

    It applies to the connections of the source type, except for values that a nearer layer sets.
    `never_select` adds to the patterns of the installation.
    """
    return await policies.put_layer(place, order)


@router.delete(
    "/policies/source-types/{source_type:path}",
    status_code=204,
    dependencies=[may(Scope.REPAIRS_DECIDE, spans_installation=True)],
    responses=problems(404, 422, 503),
)
async def delete_source_type_policy(place: OfSourceType, policies: PolicyStore) -> None:
    """Delete the policy entries of a source type; the layers above apply again."""
    await policies.delete_layer(place)


@router.get(
    "/policies/labels/{label:path}",
    dependencies=[may(Scope.CONNECTIONS_READ, spans_installation=True)],
    responses=problems(404, 422, 503),
)
async def label_policy(place: OfLabel, policies: PolicyStore) -> LayerView:
    """Get the policy entries that are set for a label; empty if there are none."""
    return await policies.layer(place)


@router.put(
    "/policies/labels/{label:path}",
    dependencies=[may(Scope.REPAIRS_DECIDE, spans_installation=True)],
    responses=problems(404, 422, 503),
)
async def put_label_policy(place: OfLabel, order: PolicyOrder, policies: PolicyStore) -> LayerView:
    """Change the given parts of the policy of a label; null removes an entry.

    It applies to the connections with the label, except for values that a nearer layer sets.
    If two labels of a connection set a value, the label whose name sorts first applies.
    `never_select` adds to the patterns of the layers above.
    """
    return await policies.put_layer(place, order)


@router.delete(
    "/policies/labels/{label:path}",
    status_code=204,
    dependencies=[may(Scope.REPAIRS_DECIDE, spans_installation=True)],
    responses=problems(404, 422, 503),
)
async def delete_label_policy(place: OfLabel, policies: PolicyStore) -> None:
    """Delete the policy entries of a label; the layers above apply again."""
    await policies.delete_layer(place)
