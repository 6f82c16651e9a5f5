"""A repair's changes as decisions of a form, and the form's choices as the API's approval.

A field's name has a digest of its change instead of the change's id, which a newer repair may give
to another change: choices can be carried over to the repair that replaced this one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from services.console.diffs import Json, dotted, stream_name
from services.console.forms import Form
from services.console.renames import REMOVALS, other_halves

LATER: Final = "later"
REJECT: Final = "reject"
OTHER: Final = "other"
GONE: Final = "gone"
APPLY: Final = "apply"
_RANK: Final = {"breaking": 0, "needs_review": 1, "harmless": 2}
_KEY_PARTS: Final = 4
_MOST_ALTERNATIVES: Final = 5
_COLUMNS: Final = ("keep_column", "new_column")
_ASK_COLUMN: Final = "Choose whether the column keeps its old name or a new column starts."
_ABOUT_CHANGE: Final = re.compile(r"choices\.([A-Za-z0-9_]{1,40})")

Path = list[str]


@dataclass(frozen=True, slots=True)
class Option:
    """One radio. `name` is a name from the source, which follows the label."""

    value: str
    label: str
    name: str = ""
    hint: str = ""
    share: float | None = None
    tag: str = ""


@dataclass(slots=True)
class Item:
    """What is decided at once: a change, with the new field of a likely rename."""

    change: Json
    pair: Json | None
    candidates: Mapping[str, Path]
    """What a removed field or stream may have become, by how it is shown."""
    options: tuple[Option, ...] = ()
    key: str = ""
    number: int = 0
    default: str = LATER
    value: str = LATER
    other: str = ""
    column: str = ""
    cursor: str = ""
    key_parts: list[str] = field(default_factory=list)
    error: str | None = None
    column_error: str | None = None
    asks_column: bool = False
    """Whether a rename needs an answer about the column of its field."""

    @property
    def id(self) -> str:
        """The change's id in this repair."""
        return str(self.change["id"])

    @property
    def stream(self) -> str:
        """The name of its stream."""
        return stream_name(self.change["stream"])

    @property
    def kind(self) -> str:
        """The kind of its change; of both halves of a rename, `field_renamed` for example."""
        kind = str(self.change["kind"])
        return kind if self.pair is None else kind.replace("removed", "renamed")

    @property
    def severity(self) -> str:
        """How severe the change is."""
        return str(self.change["severity"])

    @property
    def is_open(self) -> bool:
        """Whether it is not decided."""
        return self.value == LATER

    @property
    def is_decided(self) -> bool:
        """Whether nothing about it is left to answer."""
        return not self.is_open and not (self.asks_column and self.lacks_column)

    @property
    def lacks_column(self) -> bool:
        """Whether it renames a field that may keep its column, and that is not chosen yet."""
        is_rename = self.change["kind"] == "field_removed" and self.became is not None
        return is_rename and self.may_keep_column and not self.column

    @property
    def may_keep_column(self) -> bool:
        """Whether a rename may keep the column; True also if that is not known yet."""
        offered = self.change.get("continuity") or ()
        return not offered or any(one["choice"] == "keep_column" for one in offered)

    @property
    def is_approved(self) -> bool:
        """Whether it is decided, and not rejected."""
        return self.value not in (LATER, REJECT)

    @property
    def is_removal(self) -> bool:
        """Whether a field or stream is gone, and so may have been renamed."""
        return self.change["kind"] in REMOVALS

    @property
    def asks_cursor(self) -> bool:
        """Whether the stream may need another cursor."""
        return self.change["entity"] in ("cursor", "mode")

    @property
    def asks_key(self) -> bool:
        """Whether the stream may need another key."""
        return bool(self.change["entity"] == "key")

    @property
    def key_inputs(self) -> list[str]:
        """The texts of the inputs for the parts of a key."""
        return [*self.key_parts, *[""] * _KEY_PARTS][:_KEY_PARTS]

    @property
    def loses_or_resets(self) -> bool:
        """Whether approving it destroys or restarts something; not if its column is kept."""
        if self.became is not None and self.column == "keep_column":
            return False
        return bool(self.change.get("loses") or self.change.get("resets"))

    @property
    def effects(self) -> list[str]:
        """What approving it destroys or resets, and what the destination does; each once."""
        return list(dict.fromkeys([*_effects(self.change), *_effects(self.pair)]))

    @property
    def effects_of_pair(self) -> list[str]:
        """The effects of the new field of a likely rename that the removed field does not have."""
        own = _effects(self.change)
        return [one for one in dict.fromkeys(_effects(self.pair)) if one not in own]

    @property
    def effects_of_removal(self) -> list[str]:
        """The effects of a removed field whose column is not kept."""
        return list(dict.fromkeys(_effects(self.change)))

    @property
    def effect_if_kept(self) -> str:
        """What happens if the column of a renamed field is kept; empty if that is not offered."""
        offered = self.change.get("continuity") or ()
        return next((str(one["effect"]) for one in offered if one["choice"] == "keep_column"), "")

    @property
    def column_suggested(self) -> str:
        """What the plan does with the column if nothing is chosen."""
        offered = self.change.get("continuity") or ()
        return str(offered[0]["choice"]) if offered else ""

    @property
    def column_decided(self) -> str:
        """What was decided about the column of a renamed field; empty if it was not."""
        return str((self.change.get("decision") or {}).get("continuity") or "")

    @property
    def loses(self) -> list[str]:
        """The fields that are no longer synced; none for a rename."""
        made = self.change.get("decision") or {}
        is_rename = self.pair is not None or made.get("became")
        return [] if is_rename else list(self.change.get("loses") or ())

    @property
    def destroys(self) -> bool:
        """Whether approving it may lose values or restart something; not if the table is safe."""
        if self.loses:
            return True
        if self.column_decided == "keep_column":
            return False
        own = [one for one in (self.change, self.pair) if one is not None]
        found = [one for each in own for one in each.get("destination") or ()]
        safe = {one["message"] for one in found if one["verdict"] == "safe"}
        return any(one not in safe for one in self.effects)

    @property
    def suggested(self) -> dict[str, tuple[Path, float]]:
        """The suggested new names with their confidences, by the value of their option."""
        suggestion = self.change.get("suggestion") if self.is_removal else None
        if not suggestion:
            return {}
        found: dict[str, tuple[Path, float]] = {}
        for one in [suggestion, *(suggestion.get("alternatives") or ())[:_MOST_ALTERNATIVES]]:
            path = list(one["became"])
            found.setdefault(_renamed(path), (path, float(one["confidence"])))
        return found

    @property
    def became(self) -> Path | None:
        """What it was renamed to, by the choice; None for anything else."""
        if self.value in self.suggested:
            return self.suggested[self.value][0]
        if self.value in (OTHER, "follow") and self.other:
            return self._named(self.other)
        return None

    def _named(self, text: str) -> Path:
        """The path of what a person typed: a candidate as it is shown, else a sibling."""
        found = self.candidates.get(text)
        return found or [*(self.change.get("path") or [""])[:-1], text]

    def choice(self) -> dict[str, Any]:
        """The API's `Choice` for it; empty if it needs none."""
        made: dict[str, Any] = {}
        became = self.became
        if self.is_removal:
            made["became"] = became
        elif self.change["kind"] == "mapper_lapsed":
            made["mapper"] = self.value
            if became is not None:
                made["became"] = became
        elif self.change["kind"] == "mapping_conflict" and self.value == "end":
            made["continuity"] = "new_column"
        is_rename = self.change["kind"] == "field_removed" and became is not None
        if is_rename and self.column in _COLUMNS:
            made["continuity"] = self.column
        if self.asks_cursor and self.cursor:
            made["cursor"] = self.candidates.get(self.cursor) or [self.cursor]
        if self.asks_key and self.key_parts:
            made["primary_key"] = [self.candidates.get(one) or [one] for one in self.key_parts]
        return made

    def hidden(self) -> Iterator[tuple[str, str]]:
        """Its fields, for a page that does not show it; nothing if it is open from the start.

        A decision is there even if it is the default, which a newer plan may not have.
        """
        values = [
            ("choice", "" if self.is_open and self.default == LATER else self.value),
            ("other", self.other),
            ("column", self.column),
            ("cursor", self.cursor),
            *[("part", one) for one in self.key_parts],
        ]
        yield from ((f"{name}.{self.key}", value) for name, value in values if value)

    def fill(self, form: Form) -> None:
        """Take the choice from a submitted form; what it does not have stays as it is.

        A choice that this plan does not offer leaves the change open.
        """
        value = form.exact(f"choice.{self.key}")
        if value:
            self.value = value if value in {option.value for option in self.options} else LATER
        self.other = form.exact(f"other.{self.key}").strip()
        self.cursor = form.exact(f"cursor.{self.key}").strip()
        self.key_parts = [
            one.strip() for one in form.all(f"part.{self.key}")[:_KEY_PARTS] if one.strip()
        ]
        column = form.exact(f"column.{self.key}")
        self.column = column if column in _COLUMNS else ""


@dataclass(slots=True)
class Decisions:
    """The choices about all changes of a repair."""

    items: list[Item]
    reason: str = ""
    on_global_state: str = ""
    on_renamed_stream: str = ""

    @classmethod
    def of(cls, repair: Json, form: Form | None = None) -> Decisions:
        """The choices of a form, or else those that a page starts with."""
        items = _items(repair["changes"])
        made = cls(items)
        if form is None:
            return made
        for item in items:
            item.fill(form)
        made.reason = form.line("why")
        made.on_global_state = _one_of(form.text("on_global_state"), "refresh", "accept_gap")
        made.on_renamed_stream = _one_of(form.text("on_renamed_stream"), "take_state", "read_again")
        return made

    def ask_columns(self, policy: Json | None) -> None:
        """Ask what becomes of the columns of renamed fields, if the policy leaves that open."""
        for item in self.items:
            item.asks_column = policy is not None and policy.get("continuity") == "ask"

    def require_columns(self) -> None:
        """Set the error of each rename that has no answer about its column."""
        for item in self.approved:
            item.column_error = _ASK_COLUMN if item.lacks_column else None

    @property
    def renamed(self) -> list[tuple[Json, Path, Path, str]]:
        """Renamed fields, each as its stream, its two paths, and what becomes of its column."""
        found: list[tuple[Json, Path, Path, str]] = []
        for item in self.items:
            made = item.change.get("decision") or {}
            became = made.get("became") if made else item.became
            column = item.column_decided if made else item.column or item.column_suggested
            if item.change["kind"] == "field_removed" and became:
                paths = list(item.change["path"]), list(became)
                found.append((item.change["stream"], *paths, column))
        return found

    @property
    def approved(self) -> list[Item]:
        """The changes to approve."""
        return [item for item in self.items if item.is_approved]

    @property
    def rejected(self) -> list[Item]:
        """The changes to reject.

        The mappers of an approved removal are not among them: the approval decides them, too.
        """
        approved = {
            _place(item.change) for item in self.approved if item.change["kind"] == "field_removed"
        }
        return [
            item
            for item in self.items
            if item.value == REJECT
            and not (item.change["kind"] == "mapper_lapsed" and _place(item.change) in approved)
        ]

    @property
    def open(self) -> list[Item]:
        """The changes that are decided later."""
        return [item for item in self.items if item.is_open]

    @property
    def removed(self) -> list[str]:
        """What the source no longer has, of what is approved; a rollback would need it again.

        A field inside another one is not among them: a version fits the source without it.
        """
        return [
            ".".join((item.stream, *(item.change.get("path") or ())))
            for item in self.approved
            if item.is_removal and len(item.change.get("path") or ()) < 2
        ]

    def count(self, ids: Iterable[str]) -> int:
        """How many of the decided changes these are: both halves of a rename are one."""
        halves = {str(item.pair["id"]): item.id for item in self.items if item.pair is not None}
        return len({halves.get(one, one) for one in ids})

    @property
    def needs_reason(self) -> bool:
        """Whether what is approved loses or resets something."""
        return any(item.loses_or_resets for item in self.approved)

    @property
    def renames_stream(self) -> bool:
        """Whether a stream gets another name."""
        return any(
            item.change["kind"] == "stream_removed" and item.became is not None
            for item in self.approved
        )

    def choose_harmless(self) -> None:
        """Approve what is open, harmless, and neither loses nor resets anything."""
        for item in self.items:
            is_harmless = item.severity == "harmless" and not item.loses_or_resets
            if item.is_open and is_harmless and not item.is_removal:
                value = next(iter(item.options)).value
                item.value = APPLY if value == APPLY else item.value

    def check(self) -> bool:
        """Set the errors of choices that contradict themselves; whether there are none."""
        rejected = {_place(item.change) for item in self.rejected}
        for item in self.items:
            item.error = None
            if item.value == OTHER and not item.other:
                item.error = "Enter the name, or choose another answer."
                continue
            became = item.became
            if became is None or not item.is_approved:
                continue
            if _target(item.change, became) in rejected:
                shown = dotted(became)
                error = f"{shown} is chosen here as the new name, but its own change is rejected."
                item.error = error
        return not any(item.error for item in self.items)

    def place(self, problem_fields: Iterable[Json]) -> None:
        """Put a service's messages next to the choices that they are about."""
        by_id = {item.id: item for item in self.items}
        for one in problem_fields:
            found = _ABOUT_CHANGE.search(str(one.get("field", "")))
            if found is not None and found[1] in by_id:
                by_id[found[1]].error = str(one.get("message", ""))

    def approval(self) -> dict[str, Any]:
        """The body of an approval."""
        choices = {item.id: choice for item in self.approved if (choice := item.choice())}
        # The page offers the choice of a renamed stream's start after its first preview alone.
        start = self.on_renamed_stream or "take_state"
        more = {
            "reason": self.reason,
            "on_global_state": self.on_global_state,
            "on_renamed_stream": start if self.renames_stream else "",
        }
        body = {"changes": _ids(self.approved), "choices": choices}
        return body | {name: value for name, value in more.items() if value}

    def rejection(self) -> dict[str, Any]:
        """The body of a rejection of the rejected changes."""
        body: dict[str, Any] = {"changes": _ids(self.rejected)}
        return body | ({"reason": self.reason} if self.reason else {})

    def digest(self, repair: Json) -> str:
        """Equal for the same choices about the same plan; a reason may still be written."""
        approval = {name: one for name, one in self.approval().items() if name != "reason"}
        known = [approval, _ids(self.rejected), repair["base_version"], repair["changes"]]
        return hashlib.sha256(orjson.dumps(known, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def _effects(change: Json | None) -> list[str]:
    """What a change resets, and what the destination does with it."""
    if change is None:
        return []
    return [
        *(change.get("resets") or ()),
        *(one["message"] for one in change.get("destination") or ()),
    ]


def _ids(items: Sequence[Item]) -> list[str]:
    return [str(one["id"]) for item in items for one in (item.change, item.pair) if one is not None]


def _items(changes: Sequence[Json]) -> list[Item]:
    pairs = other_halves(changes)
    halves = {one["id"] for one in pairs.values()}
    added = _added(changes)
    items = [
        item_of(one, pairs.get(one["id"]), added) for one in changes if one["id"] not in halves
    ]
    worst: dict[str, int] = {}
    for item in items:
        worst[item.stream] = min(worst.get(item.stream, 9), _RANK.get(item.severity, 9))
    items.sort(key=lambda one: (worst[one.stream], one.stream, _RANK.get(one.severity, 9)))
    for number, item in enumerate(items, start=1):
        item.number = number
    return items


def _added(changes: Iterable[Json]) -> dict[tuple[str, str], dict[str, Path]]:
    """New fields by stream, and new streams by namespace, each by how it is shown."""
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for one in changes:
        if one["kind"] == "field_added":
            path = list(one["path"])
            found.setdefault(("field", stream_name(one["stream"])), {})[dotted(path)] = path
        if one["kind"] == "stream_added":
            name, namespace = one["stream"]["name"], one["stream"].get("namespace") or ""
            found.setdefault(("stream", namespace), {})[dotted([name])] = [name]
    return found


def item_of(
    change: Json, pair: Json | None, added: Mapping[tuple[str, str], Mapping[str, Path]]
) -> Item:
    """What is decided about a change, with its answers; `added` is new of each stream."""
    stream = change["stream"]
    is_stream = change["kind"] == "stream_removed"
    place = (
        ("stream", stream.get("namespace") or "") if is_stream else ("field", stream_name(stream))
    )
    item = Item(change, pair, dict(added.get(place, {})))
    item.options = tuple(_options(item))
    item.default = item.value = _default(item)
    identity = [change["kind"], stream, change.get("path"), change.get("before")]
    encoded = orjson.dumps([*identity, change.get("after")], option=orjson.OPT_SORT_KEYS)
    item.key = hashlib.sha256(encoded).hexdigest()[:16]
    return item


def _default(item: Item) -> str:
    """A likely rename, or an addition that loses nothing; everything else is left open."""
    suggestion = item.change.get("suggestion") or {}
    if item.is_removal and suggestion.get("taken_by_approve"):
        return _renamed(list(suggestion["became"]))
    is_addition = item.change["kind"] in ("field_added", "stream_added")
    if is_addition and item.severity == "harmless" and not item.loses_or_resets:
        return APPLY
    return LATER


def _options(item: Item) -> Iterator[Option]:
    kind = item.change["kind"]
    if item.is_removal:
        yield from _of_removal(item)
    elif kind == "mapper_lapsed":
        yield from _of_lapse(item)
    elif kind == "mapping_conflict":
        yield Option(APPLY, "Leave the field that came back unselected")
        yield Option("end", "End the mapping", hint="Both fields get columns of their own names.")
        yield Option(REJECT, "Leave the catalog as it is", hint="You are not asked again.")
    elif kind in ("field_added", "stream_added"):
        is_excluded = bool(item.change.get("excluded"))
        hint = "It stays unselected: the policy never selects such a name." if is_excluded else ""
        yield Option(APPLY, "Accept it" if is_excluded else "Add it", hint=hint)
        yield Option(REJECT, "Leave it out", hint="You are not asked again.")
    else:
        yield Option(APPLY, "Follow the source")
        yield Option(REJECT, "Leave the catalog as it is", hint="You are not asked again.")
    yield Option(LATER, "Decide later", hint="It stays in this repair.")


def _of_removal(item: Item) -> Iterator[Option]:
    suggestion = item.change.get("suggestion") or {}
    what = "stream" if item.change["kind"] == "stream_removed" else "field"
    for value, (path, share) in item.suggested.items():
        is_likely = suggestion.get("taken_by_approve") and path == list(suggestion["became"])
        tag = "Suggested" if is_likely else ""
        yield Option(value, "Renamed to", dotted(path), share=share, tag=tag)
    yield Option(OTHER, f"Renamed to another new {what}")
    added = "" if item.pair is None else "What seemed to be its new name is added on its own."
    yield Option(GONE, "Removed in the source", hint=f"It is no longer synced. {added}".strip())
    yield Option(
        REJECT,
        "Leave the catalog as it is",
        hint="It stays selected, without values from the source. You are not asked again.",
    )


def _of_lapse(item: Item) -> Iterator[Option]:
    labels = {
        "follow": ("Let the mappers follow the field", "To its new name: that of the rename, or"),
        "drop": ("Remove the mappers that name it", "They have no effect any more."),
        "keep_field": ("Keep the field and its mappers", "Although the source does not offer it."),
    }
    for value in item.change.get("choices") or ():
        if value in labels:
            label, hint = labels[value]
            yield Option(value, label, hint=hint)
    yield Option(REJECT, "Leave the mappers as they are", hint="You are not asked again.")


def _renamed(path: Path) -> str:
    """The value of an option that names what something became; the same in every plan."""
    return f"renamed-{hashlib.sha256(orjson.dumps(path)).hexdigest()[:12]}"


def _place(change: Json) -> tuple[str, str, tuple[str, ...]]:
    stream = change["stream"]
    return stream.get("namespace") or "", stream["name"], tuple(change.get("path") or ())


def _target(change: Json, became: Sequence[str]) -> tuple[str, str, tuple[str, ...]]:
    """The place of what a removed field or stream became."""
    namespace, name, _ = _place(change)
    if change["kind"] == "stream_removed":
        return namespace, became[-1], ()
    return namespace, name, tuple(became)


def _one_of(given: str, *known: str) -> str:
    return given if given in known else ""
