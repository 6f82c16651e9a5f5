"""Sweep, reconcile or rebuild the health of connections by hand.

`python -m services.orchestrator.maintenance_command sweep --dry-run`

The orchestrator does all of it periodically. This command is for inspecting the result first, with
`--dry-run`, and for rebuilding the health at once after a backup was restored.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import msgspec

from services.orchestrator.airbyte_workspace import workspace_of
from services.orchestrator.catalog_reconciler import Compared, ReapplySaga, Reconciler
from services.orchestrator.health_rebuild import Rebuilt, rebuild
from services.orchestrator.leftover_sweeper import Sweeper, Swept
from shared.airbyte_client import AirbyteClient
from shared.config import Settings, load
from shared.database import Database
from shared.errors import AamError
from shared.job_queue import Jobs
from shared.observability import logs
from shared.operations import Operations


async def run(what: str, *, dry_run: bool) -> Swept | Compared | Rebuilt:
    """Sweep, reconcile or rebuild once."""
    settings = load(Settings)
    logs.set_up("maintenance", level="ERROR")
    db = Database.at(settings.registry_address, application="maintenance")
    if what == "health":
        try:
            return await rebuild(db)
        finally:
            await db.close()
    async with AirbyteClient.from_settings(settings) as airbyte:
        try:
            if what == "sweep":
                sweeper = Sweeper(db, airbyte, grace=settings.sweep_grace)
                default = await workspace_of(settings, airbyte)
                return await sweeper.sweep(default, dry_run=dry_run)
            jobs = Jobs(settings.registry_address, application="maintenance")
            operations = Operations(settings, db, jobs, service="orchestrator")
            operations.register("reapply", ReapplySaga(settings, db, airbyte))
            # The orchestrator continues any operation that is unfinished when this process exits.
            async with operations.running():
                reconciler = Reconciler(settings, db, airbyte, operations)
                return await reconciler.reconcile(dry_run=dry_run)
        finally:
            await db.close()


def main() -> int:
    """Print the result as JSON; return 1 where something needs attention."""
    parser = argparse.ArgumentParser(prog="maintenance", description=__doc__)
    parser.add_argument("what", choices=["sweep", "reconcile", "health"])
    parser.add_argument("--dry-run", action="store_true", help="report only, change nothing")
    given = parser.parse_args()
    if given.what == "health" and given.dry_run:
        parser.error("health has no dry run: it writes nothing but what follows from other tables")
    try:
        result = asyncio.run(run(given.what, dry_run=given.dry_run))
    except AamError as error:
        sys.exit(f"{given.what}: {error.detail}")
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(result).decode(), indent=2) + "\n")
    return 1 if _needs_attention(result) else 0


def _needs_attention(result: Swept | Compared | Rebuilt) -> bool:
    if isinstance(result, Swept):
        return bool(result.left or result.failed or result.synced or result.unlisted)
    return isinstance(result, Compared) and bool(result.unknown)


if __name__ == "__main__":
    sys.exit(main())
