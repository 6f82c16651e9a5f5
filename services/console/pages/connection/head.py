"""What every page of a connection starts with: its name, its health, its facts and its tabs."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from fastapi import Request
from fastapi.responses import Response

from services.console.api import Api, Panel, load
from services.console.destination_names import DestinationNames
from services.console.problems import PageProblem
from services.console.rendering import render

PATH: Final = "/connections/{connection_id:uuid}"
"""Only ids, so that `/connections/import` is another page."""
_TABS: Final = (
    ("timeline", "Timeline"),
    ("catalog", "Catalog"),
    ("versions", "Versions"),
    ("schema", "Schema"),
    ("syncs", "Syncs"),
    ("policy", "Policy"),
)
_NEXT: Final = {
    "failed": "The timeline shows the operation that failed.",
    "paused-by-repair": "Decide on the repair to resume the connection where it stopped.",
    "paused": "Resume it when it should sync again.",
    "needs-review": "Syncs continue with the current catalog until you decide.",
    "differs": "The timeline shows what was changed in Airbyte.",
    "sync-failing": "The syncs and their logs show why.",
    "suspicious": "Check the permissions of the source's user, or accept the result under Schema.",
    "overdue": "Check the schema now, or see under Schema why it was not checked.",
}
"""What a person can do next, by health word."""
DONE: Final = {
    "sync": "The sync has started.",
    "syncing": "The sync is being started.",
    "checked": "The schema was checked: it is as before.",
    "changed": "The schema was checked: it has changed.",
    "suspicious": "The schema was checked: the result is suspicious.",
    "checking": "The schema is being checked. This takes a few minutes at most.",
    "pending": "The schema was read. It is compared once the connection is active.",
    "check-failed": "The schema could not be checked.",
    "planned": "The repairs were planned again.",
    "paused": "The connection is paused.",
    "resumed": "The connection is resumed.",
    "changing": "The change is recorded, and being carried out in Airbyte.",
    "cancelled": "The sync is cancelled.",
    "cancelling": "The sync is being cancelled.",
    "ended": "The sync had ended before it could be cancelled.",
    "applied": "The selection is being applied. The timeline shows when Airbyte has it.",
    "policy": "The policy is saved.",
    "interval": "The interval is saved.",
    "archiving": "The connection is being archived.",
    "archived": "The connection is archived.",
}
"""What a redirect reports, by its parameter `done`."""


@dataclass(frozen=True, slots=True)
class Head:
    """A connection as its pages show it above the tabs."""

    id: str
    connection: Mapping[str, Any] | None
    """None if the orchestrator does not answer; then `problem` is why."""
    problem: PageProblem | None
    health: Mapping[str, Any] | None
    """With `word` as the name of its icon; None if unknown."""
    observation: Panel[Mapping[str, Any]]
    """How and when its schema is checked."""

    @property
    def name(self) -> str:
        """The connection's name, or its id."""
        return str(self.connection["name"]) if self.connection else self.id

    @property
    def is_archived(self) -> bool:
        """Whether nothing can be changed any more."""
        return bool(self.connection and self.connection.get("archived_at"))

    @property
    def is_paused(self) -> bool:
        """Whether a person or a repair paused it, or Airbyte has it paused."""
        one = self.connection or {}
        is_inactive = one.get("upstream_code") == "paused"
        return bool(one.get("paused_by") or one.get("pause_requested_by") or is_inactive)

    @property
    def version(self) -> int | None:
        """The newest catalog version; None before the first one, or if it is unknown."""
        return (self.connection or {}).get("catalog_version") or None

    @property
    def repair_id(self) -> str | None:
        """The repair that waits for a decision, or that paused it."""
        return (self.health or {}).get("repair_id") or (self.connection or {}).get("paused_by")

    @property
    def next_step(self) -> str | None:
        """What a person can do about the health, in a sentence."""
        return _NEXT.get(self.health["word"]) if self.health else None

    @property
    def tabs(self) -> tuple[tuple[str, str, str], ...]:
        """Id, label and address of each tab."""
        return tuple((tab, label, f"/connections/{self.id}/{tab}") for tab, label in _TABS)


async def opened(
    api: Api, connection_id: UUID, **parts: Awaitable[Any]
) -> tuple[Head, dict[str, Panel[Any]]]:
    """The head of a connection's page, and the panels of the page, loaded at once.

    Raises:
        PageProblem: there is no such connection, or the person may not see it. If a service is
            away, only what it knows is missing.
        SignedOut: the credential is no longer accepted.
    """
    panels = await load(
        **parts,
        head_connection=api.orchestrator.get("/connections/{}", connection_id),
        head_health=api.orchestrator.get(
            "/connections", q=connection_id, include="health", limit=10
        ),
        head_observation=api.schema_observer.get("/connections/{}/observation", connection_id),
    )
    connection, health, observation = (
        panels.pop(f"head_{part}") for part in ("connection", "health", "observation")
    )
    if connection.problem is not None and connection.problem.status < 500:
        raise connection.problem
    found = connection.value
    head = Head(
        id=str(connection_id),
        connection=found,
        problem=connection.problem,
        health=_health(found, health.value),
        observation=observation,
    )
    return head, panels


def _health(
    connection: Mapping[str, Any] | None, listed: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """The health with the name of its icon; lists without `archived` leave out archived ones."""
    if connection is not None and connection.get("archived_at"):
        return {
            "word": "archived",
            "reason": "Its history is kept.",
            "since": connection["archived_at"],
        }
    for one in (listed or {}).get("items", ()):
        if connection is not None and one["id"] == connection["id"] and one.get("health"):
            health = one["health"]
            return {**health, "word": health["health"].replace("_", "-")}
    return None


def show(
    request: Request,
    template: str,
    head: Head,
    *,
    tab: str,
    problem: PageProblem | None = None,
    status: int = 200,
    **context: Any,
) -> Response:
    """A page of a connection; `problem` is why what a form asked for was not done."""
    if request.method == "POST":
        # Links of the page lead to its tab, since the address of a form cannot be opened.
        context["page_path"] = f"/connections/{head.id}/{tab or 'archive'}"
    names: DestinationNames = request.app.state.destination_names
    remembered = names.remembered(request.state.session.caller_id)
    destination_id = (head.connection or {}).get("airbyte_destination_id", "")
    return render(
        request,
        template,
        destination_name=remembered.get(destination_id),
        status=status if problem is None else problem.status,
        head=head,
        tab=tab,
        refused=problem,
        done=DONE.get(request.query_params.get("done", "")),
        **context,
    )
