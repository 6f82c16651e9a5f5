"""Check that the drift_repair_agent knows `dry_run`; an older one would carry the request out."""

from __future__ import annotations

from services.console.api import Api
from services.console.problems import ApiProblem, PageProblem


async def expect_supported(api: Api) -> None:
    """Check that the drift_repair_agent supports dry runs.

    `GET /repairs/summary` was added together with them. An older service ignores the parameter
    `dry_run`, so that a preview during an upgrade would be a decision.

    Raises:
        PageProblem: it does not support them, or does not answer.
    """
    try:
        await api.drift_repair_agent.get("/repairs/summary")
    except ApiProblem as problem:
        if problem.status in (404, 422):
            raise PageProblem(
                503,
                "dry_run_unsupported",
                "The drift_repair_agent is older than this console and has no previews yet. "
                "Nothing was changed; try again when the upgrade is complete.",
            ) from None
        raise
