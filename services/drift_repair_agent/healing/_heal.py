"""Build the catalog that results from the decisions about a source's changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from services.drift_repair_agent.healing._conflicts import resolved
from services.drift_repair_agent.healing._continuity import renamings, why_not_kept
from services.drift_repair_agent.healing._lapsed import refused_mapping, with_mapping
from services.drift_repair_agent.healing._model import Effect, Healed, HealImpossible, Instruction
from services.drift_repair_agent.healing._stream_definition import Blend
from services.drift_repair_agent.healing._stream_settings import Choices, Settings
from shared.domain.catalog import (
    Catalog,
    ConfiguredStream,
    Exclusions,
    InvalidCatalog,
    Problem,
    StreamId,
    ToleratedSettings,
    distinct,
    join,
    validate,
)
from shared.domain.catalog._merge import deselected
from shared.domain.catalog._model import (
    MAX_PROBLEMS,
    PAIR,
    Document,
    Path,
    encode_pair,
    listed,
    read_stream,
    readable,
    reconfigured,
    shown,
)
from shared.domain.catalog._selection import config_for
from shared.domain.cooperative import Steps, Stepwise
from shared.domain.drift import MAPPER_LAPSED, Change, Kind
from shared.domain.drift._diff import changes_of, has_field, slices_of
from shared.domain.drift._severity import dotted

_ANY_DESTINATION = frozenset({"append", "overwrite"})


@Stepwise
def heal(
    configured: Catalog,
    discovered: Document | Iterable[Document],
    decisions: Sequence[Instruction],
    *,
    exclusions: Exclusions | None = None,
) -> Steps[Healed]:
    """Build the catalog to apply: `configured` with the decided changes towards `discovered`.

    A stream without a decision stays the same, byte for byte. If every change of a stream is
    applied, it gets the source's definition byte for byte; if only some are, the others stay out,
    also inside fields. `discovered` may be slices; it needs only the streams with decisions.

    A hand-picked list of fields never grows, except by the new name of a field in it and by fields
    that the cursor or key needs. A renamed cursor or key is followed. A lost cursor is replaced by
    the source's own, or else the stream is read in full; a stream without its key is no longer
    deduplicated. Each of these is an effect. A decision that the catalog already reflects changes
    nothing, so healing is idempotent.

    With `keep_column`, a renamed field is written into the column of its former name, by a renaming
    in front of the stream's mappers; the former name is then not selected.

    A lapsed mapper needs a decision of its own: it is removed, or follows its field to a new name.
    With any other, a catalog in which a mapper names a field that is gone is refused, as Airbyte
    would refuse it. All other mappers stay byte for byte.

    A field that `exclusions` never select is added to no stream, whatever was decided; one that the
    connection syncs already stays. Problems of streams without decisions are ignored, and so are
    settings and modes that Airbyte has and AAM does not know.

    Raises:
        HealImpossible: a decision does not match the source's change, or leads to a catalog that
            Airbyte would reject, or to a never-selected field that cannot be excluded.
        InvalidCatalog: `discovered` is not a catalog, or offers one stream twice.
    """
    by_stream: dict[StreamId, list[Instruction]] = {}
    for decision in decisions:
        by_stream.setdefault(decision.change.stream, []).append(decision)
    wanted = by_stream.keys() | {
        decision.became for decision in decisions if isinstance(decision.became, StreamId)
    }
    slices = slices_of(discovered)
    ids = yield from distinct.steps(slices)
    offered: dict[StreamId, ConfiguredStream] = {}
    for position, stream_id in enumerate(ids):
        if stream_id in wanted:
            offered[stream_id] = read_stream(slices[position], position)
            yield

    healing = _Healing(configured, offered, exclusions)
    for stream in configured.streams:
        healing.take(stream, by_stream.pop(stream.id, ()))
        yield
    for decided in by_stream.values():
        healing.add(decided)
    catalog = healing.catalog()
    familiar = ToleratedSettings.of([*configured.selected().streams, *offered.values()])
    held = frozenset(stream.digest for stream in configured.streams)
    try:
        yield from validate.steps(catalog, familiar=familiar, held=held)
    except InvalidCatalog as error:
        raise HealImpossible(error.problems) from error
    return Healed(join(stream.raw for stream in catalog.streams), tuple(healing.effects))


class _Healing:
    """Builds the catalog, stream by stream."""

    def __init__(
        self,
        configured: Catalog,
        offered: Mapping[StreamId, ConfiguredStream],
        exclusions: Exclusions | None,
    ) -> None:
        self.effects: list[Effect] = []
        self._exclusions = exclusions
        self._offered = offered
        self._before = frozenset(stream.id for stream in configured.streams if stream.selected)
        self._writes = _ANY_DESTINATION | {
            stream.config.destination_sync_mode or "" for stream in configured.streams
        }
        self._selected: list[ConfiguredStream] = []
        self._deselected: list[ConfiguredStream] = []
        self._problems: list[Problem] = []

    def take(self, stream: ConfiguredStream, decisions: Sequence[Instruction]) -> None:
        """Heal one configured stream, or leave it as it is."""
        if not stream.selected:
            self._deselected.append(stream)
            self.add(decisions)
            return
        removal = next((d for d in decisions if _follows(d, "stream_removed")), None)
        if removal is None:
            self._selected.append(self._healed(stream, decisions) if decisions else stream)
        elif stream.id in self._offered:
            self._refuse(removal.change, "decision_outdated", "the source offers it again")
        elif isinstance(removal.became, StreamId):
            self._rename(stream, removal.change, removal.became)
        else:
            self._deselect(stream)
            self._report(
                stream.id,
                "stream_deselected",
                f"{stream.id} is deselected: its table stays unchanged, and Airbyte keeps its sync "
                "state, from which it resumes if it is selected again.",
            )

    def add(self, decisions: Iterable[Instruction]) -> None:
        """Select the added streams that the decisions apply."""
        for decision in decisions:
            stream = decision.change.stream
            if not _follows(decision, "stream_added") or decision.action == "exclude":
                continue
            offered = self._offered.get(stream)
            if offered is None:
                self._refuse(decision.change, "unknown_stream", "the source does not offer it")
                continue
            config = config_for(offered, self._writes)
            if config is None:
                reason = "none of its sync modes fits the connection's destination sync modes"
                self._refuse(decision.change, "unsupported_sync_mode", reason)
                continue
            written = Raw(msgspec.json.encode(config))
            selected = _stream(PAIR.decode(offered.raw).stream, written)
            hidden = self._hidden(selected)
            if hidden and self._exclusions is not None:
                try:
                    selected = self._exclusions.without(selected)
                except InvalidCatalog as error:
                    self._problems += error.problems
                    continue
            self._selected.append(selected)
            self._report(
                stream,
                "stream_selected",
                f"{stream} is selected: it is read by {config.sync_mode} and written by "
                f"{config.destination_sync_mode}, from its start unless Airbyte has kept sync "
                "state of it.",
            )
            if hidden:
                self._report(
                    stream,
                    "never_selected",
                    f"{listed(sorted(hidden))} of {stream} is excluded: the policy never selects "
                    "it.",
                )

    def catalog(self) -> Catalog:
        """The catalog with all streams, deselected ones last.

        Raises:
            HealImpossible: a decision could not be followed.
        """
        if self._problems:
            raise HealImpossible(self._problems[:MAX_PROBLEMS])
        selected = {stream.id for stream in self._selected}
        rest = [stream for stream in self._deselected if stream.id not in selected]
        return Catalog((*self._selected, *rest))

    def _healed(
        self, current: ConfiguredStream, decisions: Sequence[Instruction]
    ) -> ConfiguredStream:
        decisions = [
            d for d in decisions if d.change.kind not in ("stream_added", "stream_removed")
        ]
        mapping = [d for d in decisions if d.change.kind == MAPPER_LAPSED]
        if all(
            d.action == "keep" and d.cursor is None and d.primary_key is None for d in decisions
        ):
            return current
        offered = self._offered.get(current.id)
        if offered is None:
            self._refuse(decisions[0].change, "unknown_stream", "the source does not offer it")
            return current
        decisions, adopted = resolved(decisions, current)
        with readable(f"stream {current.id}"):
            changes = list(changes_of(current.id, current.stream, offered.stream))
        others = [d for d in decisions if d not in mapping]
        taking = _Taking(others, changes, current, offered)
        choices = with_mapping(taking.choices(), mapping)
        choices = msgspec.structs.replace(choices, adopted=adopted | taking.ended)
        taking.refused += refused_mapping(mapping, current, offered, choices)
        for change, code, reason in taking.refused:
            self._refuse(change, code, reason)
        for path in taking.nested:
            self._report(
                current.id,
                "field_excluded_whole",
                f"{shown(path[0])} of {current.id} is excluded completely, since the policy never "
                f"selects {shown(dotted(path))} in it, and Airbyte selects only top-level fields.",
            )
        old, new = PAIR.decode(current.raw).stream, PAIR.decode(offered.raw).stream
        with readable(f"stream {current.id}"):
            blend = Blend(old, new, changes=changes, taken=taking.taken)
        for path in blend.whole:
            self._report(
                current.id,
                "field_kept_whole",
                f"{shown(dotted(path))} of {current.id} is described by several schemas: it stays "
                "unchanged until all of its changes are applied.",
            )
        return self._renewed(current, blend.definition, offered, taking.taken, choices)

    def _rename(self, current: ConfiguredStream, change: Change, name: StreamId) -> None:
        offered = self._offered.get(name)
        if offered is None:
            self._refuse(change, "unknown_stream", f"the source offers no {name}")
        elif name in self._before:
            self._refuse(change, "stream_already_selected", f"{name} is already synced")
        else:
            with readable(f"stream {current.id}"):
                changes = list(changes_of(name, current.stream, offered.stream))
            definition = PAIR.decode(offered.raw).stream
            self._selected.append(self._renewed(current, definition, offered, changes, Choices()))
            self._deselect(current)
            self._report(
                name,
                "stream_renamed",
                f"{current.id} is synced as {name}, into the table of that name: it is read from "
                "its start, unless Airbyte has kept sync state of it. The former table stays "
                "unchanged.",
            )

    def _renewed(
        self,
        current: ConfiguredStream,
        definition: Raw,
        offered: ConfiguredStream,
        taken: Sequence[Change],
        choices: Choices,
    ) -> ConfiguredStream:
        """The stream with its new definition and the settings that follow from it."""
        config = PAIR.decode(current.raw).config
        renewed = _stream(definition, config)
        more = self._newly_hidden(current, renewed)
        if more:
            excluded = choices.excluded | more
            choices = msgspec.structs.replace(choices, excluded=excluded, never=more)
        settings = Settings(current, renewed, offered, taken=taken, choices=choices)
        self._problems += settings.problems
        self.effects += settings.effects
        if not settings.changes:
            same = definition == PAIR.decode(current.raw).stream
            return current if same else renewed
        return _stream(definition, reconfigured(config, **settings.changes))

    def _hidden(self, stream: ConfiguredStream) -> frozenset[str]:
        """The never-selected fields among those that the source offers of a stream."""
        if self._exclusions is None:
            return frozenset()
        return self._exclusions.hidden(stream.stream)

    def _newly_hidden(self, current: ConfiguredStream, renewed: ConfiguredStream) -> frozenset[str]:
        """The never-selected fields that would be added to what the connection syncs."""
        if self._exclusions is None:
            return frozenset()
        return self._hidden(renewed) - self._exclusions.synced(current)

    def _deselect(self, stream: ConfiguredStream) -> None:
        self._deselected.append(read_stream(deselected(stream.raw, PAIR.decode(stream.raw))))

    def _report(self, stream: StreamId, code: str, message: str) -> None:
        self.effects.append(Effect(stream, code, message))

    def _refuse(self, change: Change, code: str, reason: str) -> None:
        what = f"{change.kind} of {change.stream}"
        if change.path:
            what += f" at {shown(dotted(change.path))}"
        message = f"The decision on {what} cannot be applied: {reason}."
        self._problems.append(Problem(change.stream, "decisions", code, message))


class _Taking:
    """Selects the changes of one stream to apply, by the decisions on them."""

    def __init__(
        self,
        decisions: Sequence[Instruction],
        changes: Sequence[Change],
        current: ConfiguredStream,
        offered: ConfiguredStream,
    ) -> None:
        self.refused: list[tuple[Change, str, str]] = []
        self.nested: list[Path] = []
        self._renamed: dict[Path, Path] = {}
        self._excluded: set[str] = set()
        self._kept: set[str] = set()
        self.ended: set[str] = set()
        self._decisions = decisions
        self._current = current
        self._offered = offered
        self._there = {_place(change): change for change in changes}
        taken: set[tuple[str, Path]] = set()
        decided: set[tuple[str, Path]] = set()
        for decision in decisions:
            place = _place(decision.change)
            if place in decided:
                self._refuse(decision, "decided_twice", "another decision is about the same change")
            decided.add(place)
            if self._is_outdated(decision.change):
                self._refuse(decision, "decision_outdated", "the source has changed since")
            elif self._follow(decision) and place in self._there:
                taken.add(place)
        for new in self._renamed.values():
            taken |= {
                place
                for place in self._there
                if place[0] == "field_added" and new[: len(place[1])] == place[1]
            }
        self.taken = [change for change in changes if _place(change) in taken]

    def choices(self) -> Choices:
        return Choices(
            renamed=self._renamed,
            excluded=frozenset(self._excluded),
            kept=frozenset(self._kept),
            cursor=next((d.cursor for d in self._decisions if d.cursor is not None), None),
            primary_key=next(
                (d.primary_key for d in self._decisions if d.primary_key is not None), None
            ),
        )

    def _follow(self, decision: Instruction) -> bool:
        """Whether the change is to be applied; also records the decision's rename or exclusion."""
        change = decision.change
        if decision.action == "exclude" and change.kind in ("field_added", "field_retyped"):
            if len(change.path) > 1:
                self.nested.append(change.path)
            self._excluded.add(change.path[0])
        elif decision.action == "keep":
            return False
        elif decision.became is not None and _place(change) in self._there:
            return self._rename(decision, decision.became)
        return True

    def _rename(self, decision: Instruction, became: Path | StreamId) -> bool:
        if decision.change.kind != "field_removed" or isinstance(became, StreamId):
            self._refuse(decision, "not_a_rename", "only a removed field or stream can be renamed")
        elif not has_field(self._offered.stream, became):
            self._refuse(decision, "unknown_field", f"there is no {shown(dotted(became))}")
        elif became in self._renamed.values():
            self._refuse(
                decision,
                "renamed_twice",
                f"{shown(dotted(became))} is the new name of another field",
            )
        else:
            return self._follow_name(decision, became)
        return False

    def _follow_name(self, decision: Instruction, became: Path) -> bool:
        old = decision.change.path
        if decision.continuity == "keep_column":
            reason = why_not_kept(self._current, self._offered.stream, old, became)
            if reason is not None:
                reason = f"the column of {shown(dotted(old))} cannot be kept, since {reason}"
                self._refuse(decision, "column_not_keepable", reason)
                return False
            self._kept.add(old[0])
        elif decision.continuity == "new_column" and old[0] in renamings(self._current.config):
            self.ended.add(old[0])
        self._renamed[old] = became
        return True

    def _is_outdated(self, change: Change) -> bool:
        """Whether the source now differs at this place in another way than when it was decided.

        If it does not differ at all, the catalog already is as decided.
        """
        found = self._there.get(_place(change))
        if found is not None:
            return _values(found) != _values(change)
        path = change.path
        gone = change.kind == "field_removed"
        return bool(path) and any(
            there and (path[: len(there)] == there or (gone and there[: len(path)] == path))
            for _, there in self._there
        )

    def _refuse(self, decision: Instruction, code: str, reason: str) -> None:
        self.refused.append((decision.change, code, reason))


def _place(change: Change) -> tuple[str, Path]:
    return change.kind, change.path


def _values(change: Change) -> bytes:
    """A change's values, in a form that is equal for a new change and one decoded from JSON."""
    return msgspec.json.encode([change.before, change.after], order="sorted")


def _follows(decision: Instruction, kind: Kind) -> bool:
    return decision.change.kind == kind and decision.action != "keep"


def _stream(definition: Raw, config: Raw | dict[str, Any]) -> ConfiguredStream:
    return read_stream(encode_pair(definition, config))
