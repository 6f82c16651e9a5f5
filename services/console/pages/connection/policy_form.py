"""The form of a connection's policy: what each entry means, and what a submitted form changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from services.console.forms import Form
from services.console.pages.connection.words import plain, sentence

PATTERNS: Final = "never_select"
_REACTIONS: Final = (
    ("apply", "Apply at once"),
    ("propose", "Ask a person"),
    ("pause", "Pause and ask"),
    ("ignore", "Ignore"),
)
_ENTRIES: Final = {
    "stream.added": "A new stream",
    "stream.removed": "A stream is gone",
    "stream.renamed": "A stream was renamed",
    "field.added": "A new field",
    "field.removed": "A field is gone",
    "field.renamed": "A field was renamed",
    "type.widened": "A type became wider",
    "type.narrowed": "A type became narrower",
    "type.clashing": "A type became another one",
    "key.changed": "The primary key changed",
    "key.lost": "The primary key is gone",
    "cursor.changed": "The cursor changed",
    "cursor.lost": "The cursor is gone",
    "mode.lost": "The sync mode is no longer offered",
    "mapper.lapsed": "A mapper's field is gone",
}
_SETTINGS: Final[Mapping[str, tuple[str, Sequence[tuple[str, str]]]]] = {
    "verify": (
        "Verify an applied repair",
        (("read_back", "By reading it back"), ("sync", "By a sync")),
    ),
    "continuity": (
        "The column of a renamed field",
        (("ask", "Ask a person"), ("keep_column", "Keep it"), ("new_column", "Start a new one")),
    ),
    "on_suspicious_volume": (
        "Far fewer rows after a repair",
        (("report", "Report it"), ("rollback", "Roll the repair back")),
    ),
    "credentials": (
        "A credential changes in its store",
        (("apply", "Check and apply it"), ("propose", "Report it"), ("ignore", "Ignore it")),
    ),
    "sync_after_heal": (
        "After a failed sync was healed",
        (("never", "Wait for the next sync"), ("once", "Sync once more")),
    ),
    "two_approvals_from": (
        "Two people approve changes",
        (
            ("harmless", "Of any severity"),
            ("needs_review", "That need review"),
            ("breaking", "That are breaking"),
        ),
    ),
    "rename_min_confidence": ("Lowest confidence to apply a rename", ()),
    "discoveries_per_day": ("Most schema checks in 24 hours", ()),
}
_NUMBERS: Final[Mapping[str, Callable[[str], float]]] = {
    "rename_min_confidence": float,
    "discoveries_per_day": int,
}
_TOO_LARGE: Final = 2**63
_UNSET: Final = {
    "two_approvals_from": "Never",
    "discoveries_per_day": "As the installation's limit",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One entry of the policy, as the form shows it."""

    name: str
    """`entity.what` of a reaction, or the name of a setting."""
    label: str
    in_effect: str
    layer: str
    is_own: bool
    above: str
    """What applies without the connection's own entry."""
    options: Sequence[tuple[str, str]]
    """Values and their words; empty for a number."""
    was: str
    """The connection's own value when the form was made; empty without one."""
    chosen: str
    """The value in the field."""


@dataclass(frozen=True, slots=True)
class PolicyForm:
    """The rows and patterns of the form."""

    reactions: Sequence[Row]
    settings: Sequence[Row]
    patterns_above: Sequence[tuple[str, str]]
    """The patterns of other layers, with the layer of each."""
    patterns_was: str
    patterns: str


class Edited:
    """What a submitted form changes, compared with the values that it was made with."""

    def __init__(self, new: Mapping[str, str], was: Mapping[str, str]) -> None:
        self._new = new
        self._was = was

    @classmethod
    def of(cls, form: Form) -> Self:
        """What a form has: `set.` before each new value, and `was.` before each old one."""
        return cls(form.starting_with("set."), form.starting_with("was."))

    def rebased(self, own: Mapping[str, Any]) -> Self:
        """The same changes on top of what is stored now; other fields show what is stored."""
        kept = dict(self.changed)
        names = self._new.keys()
        return type(self)(
            {name: kept.get(name, own_text(own, name)) for name in names},
            {name: own_text(own, name) for name in names},
        )

    def value(self, name: str, own: str) -> str:
        """The value in a field, or the stored one if the form does not have the field."""
        return self._new.get(name, own).replace("\r\n", "\n").strip()

    def was(self, name: str) -> str:
        """The own value that the form was made with."""
        return self._was.get(name, "").replace("\r\n", "\n").strip()

    @property
    def changed(self) -> Mapping[str, str]:
        """The fields that the person changed, by entry."""
        return {
            name: self.value(name, "")
            for name in self._new
            if self.value(name, "") != self.was(name)
        }

    def conflicts(self, own: Mapping[str, Any]) -> list[str]:
        """The labels of changed entries whose own value is not that of the form any more."""
        return [label_of(name) for name in self.changed if own_text(own, name) != self.was(name)]

    @property
    def order(self) -> dict[str, Any]:
        """The body of a request: only what was changed; None removes an entry."""
        body: dict[str, Any] = {}
        for name, value in self.changed.items():
            entity, dot, what = name.partition(".")
            if dot:
                reactions = body.setdefault("reactions", {})
                reactions.setdefault(entity, {})[what] = value or None
            elif name == PATTERNS:
                lines = [line.strip() for line in value.split("\n")]
                body[name] = [line for line in lines if line] or None
            elif name in _SETTINGS:
                body[name] = _typed(name, value)
        return body

    def described(self, own: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        """Label, stored value and new value of each changed entry, in words."""
        return [
            (label_of(name), _words(name, own_text(own, name)), _words(name, value))
            for name, value in self.changed.items()
        ]


def _typed(name: str, value: str) -> Any:
    """The value as the API takes it; what is no number that JSON has is left to it to refuse."""
    if not value:
        return None
    convert = _NUMBERS.get(name)
    if convert is None:
        return value
    try:
        number = convert(value)
    except ValueError:
        return value
    return number if abs(number) < _TOO_LARGE else value  # neither is NaN


def form_of(policy: Mapping[str, Any], edited: Edited | None) -> PolicyForm:
    """The form of a policy as the API explains it, with what a person has entered so far."""
    own = policy["own"]
    explained = (policy.get("explanation") or {}).get("values", {})
    reactions = [
        _row(f"{entity}.{what}", reaction, own, explained, edited)
        for entity, whats in policy["reactions"].items()
        for what, reaction in whats.items()
    ]
    settings = [
        _row(name, policy[name], own, explained, edited) for name in _SETTINGS if name in policy
    ]
    patterns = own_text(own, PATTERNS)
    listed = (policy.get("explanation") or {}).get(PATTERNS, ())
    return PolicyForm(
        reactions=reactions,
        settings=settings,
        patterns_above=[
            (one["pattern"], layer_words(one["layer"]))
            for one in listed
            if one["layer"]["level"] != "connection"
        ],
        patterns_was=edited.was(PATTERNS) if edited else patterns,
        patterns=edited.value(PATTERNS, patterns) if edited else patterns,
    )


def _row(
    name: str,
    value: Any,
    own: Mapping[str, Any],
    explained: Mapping[str, Any],
    edited: Edited | None,
) -> Row:
    stored = own_text(own, name)
    source = explained.get(name) or {"layer": {"level": "connection" if stored else "default"}}
    above = value
    if stored:
        above = next((one["value"] for one in source.get("overrides", ())), None)
    options = _REACTIONS if "." in name else _SETTINGS[name][1]
    return Row(
        name=name,
        label=label_of(name),
        in_effect=_words(name, _text(value)),
        layer=layer_words(source["layer"]),
        is_own=bool(stored),
        above="" if stored and above is None else _words(name, _text(above)),
        options=options,
        was=edited.was(name) if edited else stored,
        chosen=edited.value(name, stored) if edited else stored,
    )


def label_of(name: str) -> str:
    """An entry in words."""
    if name == PATTERNS:
        return "Fields that are never selected"
    if name in _SETTINGS:
        return _SETTINGS[name][0]
    return _ENTRIES.get(name) or sentence(name.replace(".", " "))


def layer_words(layer: Mapping[str, Any]) -> str:
    """The layer that a value comes from, in words."""
    level = layer["level"]
    if level == "source_type":
        return f"Source type {layer.get('name')}"
    if level == "label":
        return f"Label {layer.get('name')}={layer.get('value')}"
    return {
        "default": "Default",
        "installation": "Installation",
        "connection": "This connection",
    }.get(level, sentence(level))


def reaction_words(reaction: str) -> str:
    """A reaction in words; `exclude` is only in previews."""
    if reaction == "exclude":
        return "Leave the field out"
    return dict(_REACTIONS).get(reaction) or plain(reaction)


def own_text(own: Mapping[str, Any], name: str) -> str:
    """The connection's own value of an entry as the form has it; empty without one."""
    entity, dot, what = name.partition(".")
    if dot:
        return _text(own.get("reactions", {}).get(entity, {}).get(what))
    return _text(own.get(name))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "\n".join(str(one) for one in value)
    return str(value)


def _words(name: str, value: str) -> str:
    if not value:
        return _UNSET.get(name, "")
    options = dict(_REACTIONS if "." in name else _SETTINGS.get(name, ("", ()))[1])
    return options.get(value, value.replace("\n", ", "))
