"""`python -m tests.corpus`: every step between real releases is diffed, judged and healed.

Exit 1 when the domain and a plain count disagree, or a heal does not do what was decided.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from services.drift_repair_agent import healing
from shared.domain import catalog, drift
from shared.domain.drift import Change, Verdict
from tests.corpus import count
from tests.corpus.releases import PACKAGES, schemas, versions

Json = dict[str, Any]
# Every field that a stream was cut down to is gone: Airbyte takes no stream without one.
_DEAD_ENDS = {"missing_selected_fields", "no_selected_stream"}


def in_full(_fields: Json) -> Json:
    """Everything anew each time, all fields."""
    return {"syncMode": "full_refresh", "destinationSyncMode": "overwrite"}


def by_cursor(fields: Json) -> Json:
    """Incremental and deduplicated, by a moment and an id where the stream has them."""
    names = sorted(fields)
    moments = [name for name in names if "date-time" in str(fields[name])]
    key = "id" if "id" in fields else names[0]
    return {
        "syncMode": "incremental",
        "destinationSyncMode": "append_dedup",
        "cursorField": [(moments or names)[-1]],
        "primaryKey": [[key]],
    }


def by_hand(fields: Json) -> Json:
    """As by cursor, of every other field only."""
    config = by_cursor(fields)
    chosen = dict.fromkeys([config["cursorField"][0], config["primaryKey"][0][0]])
    chosen |= dict.fromkeys(sorted(fields)[::2])
    selected = [{"fieldPath": [name]} for name in chosen]
    return config | {"fieldSelectionEnabled": True, "selectedFields": selected}


CONFIGS = {"in full": in_full, "by cursor": by_cursor, "hand-picked": by_hand}


def document(streams: dict[str, Json], configure: Any) -> bytes:
    """A syncCatalog of these schemas, each configured by its fields; those without are left out."""
    pairs = []
    for name, schema in streams.items():
        fields = schema.get("properties")
        if fields:
            config = {"selected": True, "aliasName": name, **configure(fields)}
            pairs.append({"stream": {"name": name, "jsonSchema": schema}, "config": config})
    return orjson.dumps({"streams": pairs})


def open_places(plan: list[tuple[Change, Verdict]]) -> set[tuple[Any, ...]]:
    """Where something is left to decide."""
    return {(change.stream, change.kind, change.path) for change, _ in plan}


def wrong_heals(head: catalog.Catalog, after: bytes, found: Counter[str]) -> Iterator[str]:
    """What a heal of all changes, and one of every other change, does that was not decided."""
    plan = healing.plan_changes(head, after)
    for apply in (plan, plan[::2]):
        decisions = [healing.Instruction(change, "apply") for change, _ in apply]
        try:
            result = healing.heal(head, after, decisions)
        except healing.HealImpossible as impossible:
            found["refused"] += 1
            if not {problem.code for problem in impossible.problems} <= _DEAD_ENDS:
                yield f"refused: {impossible}"
            continue
        found["healed"] += 1
        healed = catalog.parse(result.catalog)
        catalog.validate(healed)
        left = open_places(healing.plan_changes(healed, after))
        expected = open_places(plan) - open_places(apply)
        if any(effect.code == "field_kept_whole" for effect in result.effects):
            found["kept whole"] += 1
            expected |= left & open_places(apply)
        if left != expected:
            yield f"{len(left)} changes are left, not {len(expected)}"
        if not decisions and result.catalog != catalog.dump(head):
            yield "nothing was decided, and the catalog changed"


def step(before: dict[str, Json], after: dict[str, Json], found: Counter[str]) -> Iterator[str]:
    """What is wrong with one step, whose numbers are added to `found`."""
    old, new = document(before, in_full), document(after, in_full)
    reported = Counter(change.kind for change in drift.diff(old, new))
    some = {name: schema for name, schema in before.items() if schema.get("properties")}
    counted = count.changes(some, {n: s for n, s in after.items() if s.get("properties")})
    if reported != counted:
        yield f"reported {dict(reported)}, counted {dict(counted)}"
    found.update(reported)
    for name, configure in CONFIGS.items():
        head = catalog.parse(document(before, configure))
        catalog.validate(head)
        for _, verdict in healing.plan_changes(head, new):
            if verdict.affects_sync:
                found[f"{name}: {verdict.severity}"] += 1
        for wrong in wrong_heals(head, new, found):
            yield f"{name}: {wrong}"


def main() -> int:
    """One line per connector."""
    out = Console() if sys.stdout.isatty() else Console(width=170)
    kinds = ["stream_added", "stream_removed", "field_added", "field_removed", "field_retyped"]
    table = Table("connector", "versions", "steps", box=None)
    for heading in (*(kind.replace("_", " ") for kind in kinds), *CONFIGS, "heals", "refused"):
        table.add_column(heading, justify="right")
    problems: list[str] = []
    total: Counter[str] = Counter()
    started = time.monotonic()
    for package in PACKAGES:
        found: Counter[str] = Counter()
        releases = [(version, schemas(package, version)) for version in versions(package)]
        for (old, before), (new, after) in pairwise(releases):
            wrong = step(before, after, found)
            problems += [f"{package} {old} → {new}: {what}" for what in wrong]
        found["steps"] = len(releases) - 1
        _line(table, package.removeprefix("airbyte-source-"), len(releases), found, kinds)
        total += found
    table.add_section()
    _line(table, "all", total["steps"] + len(PACKAGES), total, kinds)
    out.print(table)
    out.print("\nPer configuration: harmless / to be reviewed / breaking, of what concerns it.")
    for problem in problems:
        out.print(problem, style="red", markup=False)
    out.print(f"{time.monotonic() - started:.0f} s; {len(problems) or 'no'} mismatch(es).")
    return 1 if problems else 0


def _line(table: Table, name: str, releases: int, found: Counter[str], kinds: list[str]) -> None:
    judged = [
        " / ".join(str(found[f"{config}: {severity}"]) for severity in drift.Severity)
        for config in CONFIGS
    ]
    numbers = [found["steps"], *(found[kind] for kind in kinds)]
    heals = [str(found["healed"]), str(found["refused"])]
    table.add_row(name, str(releases), *map(str, numbers), *judged, *heals)


if __name__ == "__main__":
    sys.exit(main())
