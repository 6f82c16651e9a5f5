"""The severity of a schema change for one connection, with a reason for the person who decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, Literal, TypeAlias

import msgspec

from shared.domain.catalog import ConfiguredStream, StreamId
from shared.domain.catalog._mappers import PROTECTING
from shared.domain.catalog._model import Path, listed, plain, shown
from shared.domain.catalog._validation import DEDUP, SYNC_MODES, mode
from shared.domain.drift._diff import Change, Kind
from shared.domain.drift._lapses import lapsed_types
from shared.domain.drift._types import Relation, gained, relation

Entity: TypeAlias = Literal["stream", "field", "type", "key", "cursor", "mode", "mapper"]
What: TypeAlias = Literal[
    "added",
    "removed",
    "widened",
    "narrowed",
    "clashing",
    "renamed",
    "changed",
    "lost",
    "lapsed",
    "conflicting",
]


class Severity(StrEnum):
    """How severe a change is, in rising order.

    HARMLESS: syncs continue unchanged. NEEDS_REVIEW: they continue, but data is lost or changes
    form. BREAKING: as configured, they fail or write wrong rows.
    """

    HARMLESS = "harmless"
    NEEDS_REVIEW = "needs_review"
    BREAKING = "breaking"

    @property
    def rank(self) -> int:
        """Zero for HARMLESS; higher is more severe."""
        return list(Severity).index(self)


class Verdict(msgspec.Struct, frozen=True):
    """The severity of a change for one connection.

    `affects_sync` says whether it affects what the connection syncs. `loses` names what is lost, as
    dotted paths; `resets` describes what applying the change destroys or restarts.
    """

    severity: Severity
    entity: Entity
    what: What
    affects_sync: bool
    reason: str
    loses: tuple[str, ...] = ()
    resets: tuple[str, ...] = ()


def worst(severities: Iterable[Severity]) -> Severity:
    """The highest severity; HARMLESS if there are none."""
    return max(severities, key=lambda severity: severity.rank, default=Severity.HARMLESS)


def written(change: Change, verdict: Verdict) -> dict[str, Any]:
    """A change with its verdict, as stored and returned: one object of plain JSON values."""
    members: dict[str, Any] = msgspec.to_builtins(change)
    judged: dict[str, Any] = msgspec.to_builtins(verdict)
    return members | judged


def severity(change: Change, config: ConfiguredStream | None) -> Verdict:
    """Rate a change by a connection's use of the stream; `config` is None if it does not sync it.

    All changes that Airbyte calls breaking are BREAKING: the cursor of an incremental stream or a
    key field of a deduplicated one was removed, or the source defines another key for a
    deduplicated one. Airbyte calls everything else "non-breaking"; AAM is stricter:

    - the stream was removed: BREAKING, since its sync fails or is skipped;
    - a parent of the cursor or of a key field was removed: BREAKING, like the field itself;
    - the type of cursor or key clashes with the old one: BREAKING, since saved state and written
      rows have old values; if it is wider or narrower: NEEDS_REVIEW;
    - the sync mode in use is no longer offered: BREAKING;
    - the source no longer defines the cursor or the key: BREAKING if the connection configures
      none of its own, else NEEDS_REVIEW;
    - the source defines another cursor: NEEDS_REVIEW, since the saved state belongs to the old one;
    - a selected field was removed: NEEDS_REVIEW, since its values stop;
    - a selected field has a narrower or clashing type: NEEDS_REVIEW;
    - a selected field has a wider type that adds another basic type: NEEDS_REVIEW, since the column
      changes;
    - a mapper no longer finds its field: BREAKING if it hashes or encrypts, since Airbyte drops
      invalid mappers silently at a sync, and the values arrive in plain under another name; else
      NEEDS_REVIEW.

    Changes of unselected fields, of a cursor in full refresh, or of a key without deduplication do
    not concern the connection. Paths are compared step by step, never by a common prefix of names.
    """
    if config is None or not config.selected:
        return _unused(change)
    return _JUDGED_BY[change.kind](_Judge(change, config))


def dotted(path: Path) -> str:
    """A path in dotted notation; steps that contain a dot are quoted."""
    if len(path) == 1:
        return path[0]
    return ".".join(f'"{step}"' if "." in step else step for step in path)


_UNUSED: dict[str, tuple[Entity, What]] = {
    "stream_added": ("stream", "added"),
    "stream_removed": ("stream", "removed"),
    "field_added": ("field", "added"),
    "field_removed": ("field", "removed"),
    "primary_key_changed": ("key", "changed"),
    "cursor_changed": ("cursor", "changed"),
    "sync_modes_changed": ("mode", "changed"),
    "mapper_lapsed": ("mapper", "lapsed"),
    "mapping_conflict": ("mapper", "conflicting"),
}
_DESELECTED = (
    "Airbyte keeps its sync state: if it is selected again, it resumes from its old cursor. With a "
    "global (CDC) state it would miss what changed meanwhile, unless it is refreshed.",
    "Its table stays in the destination, with its rows.",
)
_REREAD = "Its sync state becomes useless: the next sync reads the whole stream again."
_STATE = (
    "Airbyte deletes the sync state of a stream whose sync mode changes: since 1.8 with the "
    "update, before with the first sync that reads it in full."
)
_MIXED = "Rows written so far are not matched with new ones until the stream is refreshed."


def _unused(change: Change) -> Verdict:
    entity, what = _of_type(change) if change.kind == "field_retyped" else _UNUSED[change.kind]
    reason = f"The connection does not sync {change.stream}."
    return Verdict(Severity.HARMLESS, entity, what, affects_sync=False, reason=reason)


def _of_type(change: Change) -> tuple[Entity, What]:
    related = relation(change.before, change.after)
    return "type", "widened" if related == "equal" else related


class _Judge:
    """Rates one change of a stream that the connection syncs."""

    def __init__(self, change: Change, config: ConfiguredStream) -> None:
        self._change = change
        self._config = config
        self._path = tuple(change.path)
        self._name = shown(dotted(self._path))
        self._stream: StreamId = change.stream
        settings = config.config
        self._cursor = config.cursor if settings.sync_mode == "incremental" else ()
        deduplicated = settings.destination_sync_mode in DEDUP
        self._key = config.primary_key if deduplicated else ()
        self._picked = settings.selected_names()

    def stream_added(self) -> Verdict:
        reason = f"The source offers {self._stream} again."
        return self._concerned(Severity.HARMLESS, "stream", "added", reason)

    def stream_removed(self) -> Verdict:
        reason = f"The source no longer offers {self._stream}."
        return self._concerned(
            Severity.BREAKING, "stream", "removed", reason, (plain(self._stream.name),), _DESELECTED
        )

    def field_added(self) -> Verdict:
        if not self._selected:
            reason = (
                f"{self._name} is new, and the fields of {self._stream} are selected individually."
            )
            return self._unconcerned("field", "added", reason)
        reason = f"{self._name} is new; rows that are not synced again have no value for it."
        return self._concerned(Severity.HARMLESS, "field", "added", reason)

    def field_removed(self) -> Verdict:
        loses = (plain(dotted(self._path)),)
        if self._cursor and _within(self._cursor, self._path):
            reason = f"The cursor {shown(dotted(self._cursor))} of {self._stream} is gone."
            return self._concerned(Severity.BREAKING, "cursor", "lost", reason, loses, (_REREAD,))
        if any(_within(part, self._path) for part in self._key):
            reason = (
                f"{self._name} is gone, and it is part of the key that identifies rows of "
                f"{self._stream}."
            )
            return self._concerned(Severity.BREAKING, "key", "lost", reason, loses, (_MIXED,))
        if not self._selected:
            return self._unconcerned("field", "removed", f"{self._name} is not selected.")
        column = f"The column of {self._name} keeps its values and is null in new rows"
        resets = (f"{column}; some destinations drop it.",)
        reason = f"{self._name} is gone from {self._stream}."
        return self._concerned(Severity.NEEDS_REVIEW, "field", "removed", reason, loses, resets)

    def field_retyped(self) -> Verdict:
        before, after = self._change.before, self._change.after
        related = relation(before, after)
        entity, what = _of_type(self._change)
        if not self._selected:
            return self._unconcerned(entity, what, f"{self._name} is not selected.")
        if related == "equal":
            reason = f"{self._name} has the same type in another notation."
            return self._concerned(Severity.HARMLESS, entity, what, reason)
        if self._cursor and _within(self._cursor, self._path):
            return self._base_retyped(related, f"the cursor of {self._stream}", _REREAD)
        if any(_within(part, self._path) for part in self._key):
            return self._base_retyped(related, f"in the key of {self._stream}", _MIXED)
        reason = f"{self._name} has {_TURNS[related]}: {_type(before)} became {_type(after)}."
        if related == "widened" and not gained(before, after):
            return self._concerned(Severity.HARMLESS, entity, what, reason)
        lost = (plain(dotted(self._path)),) if related == "clashing" else ()
        return self._concerned(
            Severity.NEEDS_REVIEW, entity, what, reason, lost, (_column(self._name, related),)
        )

    def _base_retyped(self, related: Relation, role: str, resets: str) -> Verdict:
        entity, what = _of_type(self._change)
        types = f"{_type(self._change.before)} became {_type(self._change.after)}"
        reason = f"{self._name}, {role}, has {_TURNS[related]}: {types}."
        clashes = related == "clashing"
        grave = Severity.BREAKING if clashes else Severity.NEEDS_REVIEW
        lost = (plain(dotted(self._path)),) if clashes else ()
        return self._concerned(grave, entity, what, reason, lost, (resets,) if clashes else ())

    def key_changed(self) -> Verdict:
        after = [tuple(path) for path in self._change.after or ()]
        if not self._key:
            reason = f"{self._stream} is not deduplicated by the key that the source defines."
            return self._unconcerned("key", "changed", reason)
        names = tuple(plain(dotted(path)) for path in self._key)
        if set(after) == set(self._key):
            reason = (
                f"The source now defines the key that {self._stream} is already deduplicated by."
            )
            return self._concerned(Severity.HARMLESS, "key", "changed", reason)
        if after:
            new = listed(dotted(path) for path in after)
            reason = f"The source defines another key of {self._stream}: {new}."
            return self._concerned(Severity.BREAKING, "key", "changed", reason, names, (_MIXED,))
        if self._config.config.primary_key:
            reason = (
                f"The source no longer defines a key of {self._stream}; the configured one stays "
                "in use."
            )
            return self._concerned(Severity.NEEDS_REVIEW, "key", "changed", reason)
        reason = f"The source no longer defines the key that {self._stream} is deduplicated by."
        return self._concerned(Severity.BREAKING, "key", "lost", reason, names, (_MIXED,))

    def cursor_changed(self) -> Verdict:
        after = self._change.after or {}
        field, defined = tuple(after.get("field") or ()), bool(after.get("source_defined"))
        own = self._config.config.cursor_field
        if self._config.config.sync_mode != "incremental":
            reason = f"{self._stream} is read in full, without a cursor."
            return self._unconcerned("cursor", "changed", reason)
        if defined and field == self._cursor:
            reason = f"The source now defines the cursor that {self._stream} is already read by."
            return self._concerned(Severity.HARMLESS, "cursor", "changed", reason)
        names = (plain(dotted(self._cursor)),) if self._cursor else ()
        if defined:
            new = shown(dotted(field)) if field else "one that it does not name"
            reason = f"The source reads {self._stream} by another cursor: {new}."
            return self._concerned(
                Severity.NEEDS_REVIEW, "cursor", "changed", reason, names, (_REREAD,)
            )
        if not own:
            reason = f"The source no longer defines a cursor of {self._stream}."
            return self._concerned(Severity.BREAKING, "cursor", "lost", reason, names, (_REREAD,))
        if not self._change.before or not dict(self._change.before).get("source_defined"):
            reason = f"The source suggests another cursor; {self._stream} has a configured one."
            return self._unconcerned("cursor", "changed", reason)
        reason = (
            f"The source no longer defines a cursor of {self._stream}; the configured one stays in "
            "use."
        )
        return self._concerned(Severity.NEEDS_REVIEW, "cursor", "changed", reason)

    def modes_changed(self) -> Verdict:
        reads = self._config.config.sync_mode
        before, after = (
            set(modes) or set(SYNC_MODES)
            for modes in (self._change.before or (), self._change.after or ())
        )
        if reads is not None and reads not in after:
            reason = f"The source no longer offers {self._stream} in the mode {mode(reads)}."
            lost = (plain(reads),)
            return self._concerned(Severity.BREAKING, "mode", "lost", reason, lost, (_STATE,))
        what: What = "removed" if before - after else "added"
        reason = f"{self._stream} is synced in a mode that the source still offers."
        return self._unconcerned("mode", what, reason)

    def mapper_lapsed(self) -> Verdict:
        types = lapsed_types(self._change)
        reason = (
            f"{self._name} is not among the fields of {self._stream} that are offered and "
            f"selected, but a mapper ({', '.join(map(plain, sorted(types)))}) names it."
        )
        protecting = types & PROTECTING
        if not protecting:
            return self._concerned(Severity.NEEDS_REVIEW, "mapper", "lapsed", reason)
        made = "hashed" if "hashing" in protecting else "encrypted"
        reason += f" If its values come under another name, they are written without being {made}."
        loses = (plain(dotted(self._path)),)
        return self._concerned(Severity.BREAKING, "mapper", "lapsed", reason, loses)

    def mapping_conflict(self) -> Verdict:
        field = shown(str((self._change.before or {}).get("field")))
        reason = (
            f"{self._name} is a field of {self._stream} again, but a mapper writes {field} into "
            "the column of this name: Airbyte cannot sync both."
        )
        return self._concerned(Severity.NEEDS_REVIEW, "mapper", "conflicting", reason)

    @property
    def _selected(self) -> bool:
        return self._picked is None or not self._path or self._path[0] in self._picked

    @staticmethod
    def _concerned(
        severity: Severity,
        entity: Entity,
        what: What,
        reason: str,
        loses: tuple[str, ...] = (),
        resets: tuple[str, ...] = (),
    ) -> Verdict:
        return Verdict(severity, entity, what, True, reason, loses, resets)

    @staticmethod
    def _unconcerned(entity: Entity, what: What, reason: str) -> Verdict:
        return Verdict(Severity.HARMLESS, entity, what, affects_sync=False, reason=reason)


_JUDGED_BY: dict[Kind, Callable[[_Judge], Verdict]] = {
    "stream_added": _Judge.stream_added,
    "stream_removed": _Judge.stream_removed,
    "field_added": _Judge.field_added,
    "field_removed": _Judge.field_removed,
    "field_retyped": _Judge.field_retyped,
    "primary_key_changed": _Judge.key_changed,
    "cursor_changed": _Judge.cursor_changed,
    "sync_modes_changed": _Judge.modes_changed,
    "mapper_lapsed": _Judge.mapper_lapsed,
    "mapping_conflict": _Judge.mapping_conflict,
}
_TURNS: dict[Relation, str] = {
    "widened": "a wider type",
    "narrowed": "a narrower type",
    "clashing": "another type",
}


def _column(name: str, related: Relation) -> str:
    if related == "widened":
        return (
            f"The column of {name} becomes one that holds both types, if the destination supports "
            "that."
        )
    return (
        f"The column of {name} changes its type; the sync fails if the destination does not "
        "support that."
    )


def _within(path: Path, parent: Path) -> bool:
    return path[: len(parent)] == parent


def _type(type_: Any) -> str:
    """A type for a sentence, truncated if long."""
    return shown(msgspec.json.encode(type_).decode()).strip("'")
