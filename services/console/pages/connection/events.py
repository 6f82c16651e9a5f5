"""Entries of the timeline as sentences: what happened, who did it, and where to read on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from services.console.pages.connection.words import (
    between,
    counted,
    duration,
    mark_of,
    plain,
    sentence,
    size,
    to,
)
from services.console.renames import with_renames

Entry = Mapping[str, Any]


class Link(NamedTuple):
    """Where an event leads."""

    label: str
    href: str


class Change(NamedTuple):
    """A change of a schema, as its mark and where it is."""

    mark: str
    stream: str
    path: str
    became: str = ""
    """The new name of what was renamed."""


class Setting(NamedTuple):
    """A setting before and after a change, as texts."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the timeline, or several that are folded into one."""

    id: str
    at: str
    icon: str
    title: str
    tone: str = ""
    """good, warn, bad, info, or empty."""
    facts: Sequence[str] = ()
    """Further sentences."""
    by: str | None = None
    by_policy: bool = False
    quote: str | None = None
    """Why, as the person gave it."""
    code: str | None = None
    severity: str | None = None
    changes: Sequence[Change] = ()
    more_changes: int = 0
    settings: Sequence[Setting] = ()
    links: Sequence[Link] = ()
    since: str | None = None
    """For folded events: the time of the first one, `at` being that of the last."""
    folded: Sequence[Event] = ()
    is_gap: bool = False
    days: str = ""
    """For a gap: the days, in place of a time."""


def event_of(connection_id: str, entry: Entry) -> Event:
    """An entry of the API as an event."""
    build = _BUILDERS.get(entry["kind"], _other)
    event = build({**entry, "connection_id": connection_id})
    actor = entry.get("actor")
    return replace(
        event,
        by=actor if actor not in ("policy", "airbyte") else None,
        by_policy=actor == "policy",
        quote=entry.get("reason"),
        severity=_severity(entry),
    )


def _severity(entry: Entry) -> str | None:
    """The severity of what still waits, and of breaking changes of a schema."""
    severity = entry.get("severity")
    waits = entry["kind"] == "repair_proposed" and entry.get("outcome") == "proposed"
    is_breaking = entry["kind"] == "drift" and severity == "breaking"
    return severity if waits or is_breaking else None


def _event(entry: Entry, icon: str, title: str, **more: Any) -> Event:
    more.setdefault("code", entry.get("code"))
    return Event(entry["id"], entry["at"], icon, title, **more)


_SYNCS: Final = {
    "succeeded": ("sync", "Sync succeeded", "good"),
    "failed": ("cross", "Sync failed", "bad"),
    "cancelled": ("cross", "Sync cancelled", ""),
}
_FOLLOW_UPS: Final = {
    "observed": "AAM checked the source's schema afterwards.",
    "awaits_heal": "AAM checked the source's schema afterwards, and syncs again after a repair.",
    "synced": "AAM synced again after a repair.",
    "retried": "AAM retried it with a new credential.",
    "rejected": "The source rejects the credential.",
}


def _sync(entry: Entry) -> Event:
    icon, title, tone = _SYNCS.get(str(entry["outcome"]), ("sync", "Sync running", "info"))
    details = entry["details"]
    facts = [records_of(details, entry["at"])] if details.get("records") is not None else []
    if (details.get("attempts") or 1) > 1:
        facts.append(f"{details['attempts']} attempts.")
    cause = details.get("cause")
    if cause and cause != "unknown":
        facts.append(f"{sentence(cause)}.")
    if details.get("follow_up") in _FOLLOW_UPS:
        facts.append(_FOLLOW_UPS[details["follow_up"]])
    if entry.get("actor") == "airbyte":
        facts.append("Started by Airbyte.")
    links = []
    if entry.get("job_id") and tone != "good":
        links = [
            Link("Sync log", to("connections", entry["connection_id"], "syncs", entry["job_id"]))
        ]
    return _event(entry, icon, title, tone=tone, facts=facts, links=links)


def records_of(details: Entry, started_at: str) -> str:
    """What a sync brought: `1,204,881 records, 612 MB in 8 min`."""
    text = f"{counted(details['records'], 'record')}, {size(details.get('bytes'))}"
    took = between(started_at, details.get("ended_at"))
    return f"{text} in {duration(took)}." if took is not None else f"{text} so far."


def _changes(details: Entry) -> dict[str, Any]:
    listed = [
        Change(
            mark_of(str(one.get("kind", ""))),
            str((one.get("stream") or {}).get("name", "")),
            ".".join(str(part) for part in one.get("path") or ()),
            ".".join(str(part) for part in one.get("became") or ()),
        )
        for one in with_renames(details.get("first_changes") or (), details.get("renames") or ())
    ]
    total = details.get("change_count") or len(listed)
    return {"changes": listed, "more_changes": max(0, total - len(listed))}


def _drift(entry: Entry) -> Event:
    details = entry["details"]
    count = details.get("change_count") or 0
    facts = []
    if step := details.get("connector_step"):
        facts.append(
            f"It came with version {step['to_version']} of the connector, which was "
            f"{step['from_version']} before."
        )
    if not details.get("affects_sync", True):
        facts.append("It does not affect what the connection syncs.")
    return _event(
        entry,
        "drift",
        f"Schema changed: {counted(count, 'difference')}",
        tone="warn" if entry.get("severity") == "breaking" else "",
        facts=facts,
        links=[Link("Drift", to("drifts", entry["drift_id"]))],
        **_changes(details),
    )


def _repair_links(entry: Entry, label: str = "Repair") -> list[Link]:
    return [Link(label, to("repairs", entry["repair_id"]))] if entry.get("repair_id") else []


_PROPOSED: Final = {
    "superseded": "Replaced by a newer repair.",
    "expired": "Expired before it was decided.",
    "rejected": "It was rejected.",
    "applied": "It was applied.",
    "failed": "It was approved, and failed.",
    "rolled_back": "It was approved, and rolled back.",
}


def _repair_proposed(entry: Entry) -> Event:
    details = entry["details"]
    is_open = entry.get("outcome") == "proposed"
    title = f"Repair proposed: {counted(details.get('change_count') or 0, 'change')}"
    return _event(
        entry,
        "wrench",
        title,
        tone="warn" if is_open else "",
        facts=[_PROPOSED[entry["outcome"]]] if entry.get("outcome") in _PROPOSED else [],
        links=_repair_links(entry, "Review" if is_open else "Repair"),
        **(_changes(details) if is_open else {}),
    )


def _repair_decided(entry: Entry) -> Event:
    details = entry["details"]
    noun = "Rollback" if details.get("kind") == "rollback" else "Repair"
    verdict = str(entry.get("outcome") or "decided")
    decisions = [one for one in details.get("decisions") or () if not one.get("is_copy")]
    facts = [counted(decisions[-1]["change_count"], "change") + "."] if decisions else []
    if len(decisions) > 1:
        facts.append(f"{len(decisions)} decisions in total.")
    if noun == "Rollback" and details.get("target_version"):
        facts = []
    title = f"{noun} {plain(verdict)}"
    if noun == "Rollback" and verdict == "rolled_back":
        version = details.get("target_version")
        title = f"Rollback to version {version} requested" if version else "Rollback requested"
    return _event(
        entry,
        "cross" if verdict == "rejected" else "check",
        title,
        facts=facts,
        links=_repair_links(entry),
        **({} if noun == "Rollback" else _changes(details)),
    )


_ENDED: Final = {
    "applied": ("check", "applied", "good"),
    "failed": ("cross", "failed", "bad"),
    "rolled_back": ("undo", "rolled back after its sync failed", "bad"),
    "expired": ("clock", "expired", ""),
    "superseded": ("wrench", "replaced by a newer one", ""),
}


def _repair_ended(entry: Entry) -> Event:
    details = entry["details"]
    noun = "Rollback" if details.get("kind") == "rollback" else "Repair"
    outcome = str(entry.get("outcome"))
    icon, words, tone = _ENDED.get(outcome, ("wrench", plain(outcome), ""))
    version = entry.get("version")
    title = f"{noun} {words}"
    if noun == "Rollback" and outcome == "applied" and details.get("target_version"):
        title = f"Rolled back to version {details['target_version']}"
    facts = []
    if version and outcome == "applied":
        facts = [f"Version {version} was applied, and read back from Airbyte."]
    links = _repair_links(entry)
    if entry.get("operation_id"):
        links.append(Link("Operation", to("operations", entry["operation_id"])))
    if details.get("superseded_by"):
        links.append(Link("Newer repair", to("repairs", details["superseded_by"])))
    return _event(entry, icon, title, tone=tone, facts=facts, links=links)


ORIGINS: Final = {
    "onboard": "Onboarded",
    "import": "Imported from Airbyte",
    "repair": "Repair",
    "rollback": "Rollback",
}
"""Where a catalog version comes from."""


def _version(entry: Entry) -> Event:
    version, details = entry["version"], entry["details"]
    origin = ORIGINS.get(str(entry.get("outcome")), sentence(entry.get("outcome")))
    facts = [f"{origin}."]
    if details.get("streams") is not None:
        facts.append(f"{counted(details['streams'], 'stream')}.")
    links = []
    if version and version > 1:
        href = to("connections", entry["connection_id"], "versions", f"{version - 1}..{version}")
        links = [Link(f"Compare {version - 1} with {version}", href)]
    links += _repair_links(entry)
    return _event(
        entry, "check", f"Version {version} became active", tone="good", facts=facts, links=links
    )


def _pause(entry: Entry) -> Event:
    is_paused = entry.get("outcome") == "paused"
    title = "Paused in Airbyte" if is_paused else "Resumed in Airbyte"
    by_repair = bool(entry.get("repair_id"))
    return _event(
        entry,
        "pause" if is_paused else "sync",
        f"{title} by a repair" if by_repair else title,
        tone="warn" if is_paused and by_repair else "",
        facts=["The sync state is kept."] if is_paused else [],
        links=_repair_links(entry),
    )


_SUBJECTS: Final = {
    "connection": "Settings changed",
    "policy": "Policy changed",
    "observation": "Schema checks changed",
}


def _setting(entry: Entry) -> Event:
    details = entry["details"]
    settings = [
        Setting(plain(name), _value(change.get("from")), _value(change.get("to")))
        for name, change in (details.get("change") or {}).items()
        if isinstance(change, Mapping) and {"from", "to"} <= change.keys()
    ]
    names = [plain(name) for name in details.get("settings") or ()]
    title = _SUBJECTS.get(str(details.get("subject")), "Settings changed")
    links = []
    if details.get("subject") == "policy":
        links = [Link("Policy", to("connections", entry["connection_id"], "policy"))]
    return _event(
        entry,
        "person",
        f"{title}: {', '.join(names)}" if names else title,
        settings=settings,
        links=links,
    )


def _value(given: object) -> str:
    if given is None or given == "":
        return "nothing"
    if isinstance(given, bool):
        return "yes" if given else "no"
    if isinstance(given, Mapping) and given.keys() == {"units", "time_unit"}:
        return f"every {given['units']} {given['time_unit']}"
    if isinstance(given, Mapping):
        return ", ".join(f"{plain(name)} {_value(one)}" for name, one in given.items()) or "nothing"
    if isinstance(given, list):
        return ", ".join(_value(one) for one in given) or "nothing"
    return str(given)


_CREDENTIALS: Final = {
    "replaced": ("Credential replaced", "good"),
    "rotated": ("Credential rotated", "good"),
    "changed": ("Credential changed in its store", ""),
    "rejected": ("Credential rejected by the source", "bad"),
    "expiring": ("Credential expires soon", "warn"),
}


def _credential(entry: Entry) -> Event:
    outcome = str(entry.get("outcome"))
    title, tone = _CREDENTIALS.get(outcome, (f"Credential {plain(outcome)}", ""))
    return _event(entry, "key", title, tone=tone, settings=_setting(entry).settings)


_CONNECTORS: Final = {
    "changed": ("Connector has another version", ""),
    "upgrade_due": ("Connector has to be upgraded", "warn"),
    "upgraded": ("Connector upgraded", "good"),
}


def _connector(entry: Entry) -> Event:
    outcome = str(entry.get("outcome"))
    title, tone = _CONNECTORS.get(outcome, (f"Connector {plain(outcome)}", ""))
    links = [Link("Drift", to("drifts", entry["drift_id"]))] if entry.get("drift_id") else []
    return _event(entry, "plus", title, tone=tone, links=links)


_OBSERVATIONS: Final = {
    "suspicious": ("Schema check suspicious", "warn"),
    "failed": ("Schema check failed", "bad"),
    "recovered": ("Schema checks work again", "good"),
}


def _observation(entry: Entry) -> Event:
    outcome = str(entry.get("outcome"))
    title, tone = _OBSERVATIONS.get(outcome, (f"Schema check {plain(outcome)}", ""))
    links = []
    if outcome != "recovered":
        links = [Link("Schema checks", to("connections", entry["connection_id"], "schema"))]
    return _event(entry, "eye", title, tone=tone, links=links)


def _upstream(entry: Entry) -> Event:
    if entry.get("outcome") == "in_step":
        return _event(entry, "check", "Airbyte matches AAM again", tone="good")
    return _event(entry, "alert", "Changed in Airbyte, not by AAM", tone="warn")


def _volume(entry: Entry) -> Event:
    links = [Link("Syncs", to("connections", entry["connection_id"], "syncs"))]
    title = "A sync brought far fewer rows than usual"
    return _event(entry, "alert", title, tone="warn", links=links)


def _operation(entry: Entry) -> Event:
    details, outcome = entry["details"], str(entry.get("outcome"))
    has_failed = outcome == "failed"
    facts = []
    if details.get("step"):
        words = "It failed in the step" if has_failed else "The current step is"
        facts.append(f"{words} “{plain(details['step'])}”.")
    links = [Link("Operation", to("operations", entry["operation_id"]))]
    return _event(
        entry,
        "cross" if has_failed else "operations",
        f"{sentence(details.get('kind') or 'operation')}: {plain(outcome)}",
        tone="bad" if has_failed else "info",
        facts=facts,
        links=links,
    )


def _archived(entry: Entry) -> Event:
    return _event(entry, "lock", "Archived", facts=["Its history is kept."])


def _other(entry: Entry) -> Event:
    title = sentence(entry["kind"])
    return _event(entry, "info", f"{title}: {plain(entry.get('outcome') or 'recorded')}")


_BUILDERS: Final[Mapping[str, Callable[[Entry], Event]]] = {
    "sync": _sync,
    "drift": _drift,
    "repair_proposed": _repair_proposed,
    "repair_decided": _repair_decided,
    "repair_ended": _repair_ended,
    "version": _version,
    "pause": _pause,
    "setting": _setting,
    "credential": _credential,
    "connector": _connector,
    "observation": _observation,
    "upstream": _upstream,
    "volume": _volume,
    "operation": _operation,
    "archived": _archived,
}
