"""The input and output of `heal`: instructions, effects and the healed catalog."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from shared.domain.catalog import InvalidCatalog, StreamId
from shared.domain.catalog._model import Path
from shared.domain.drift import Change

Action: TypeAlias = Literal["apply", "keep", "exclude", "drop_mapper"]
Continuity: TypeAlias = Literal["keep_column", "new_column"]


class Instruction(msgspec.Struct, frozen=True):
    """What to do about one change of the source.

    `apply` follows the source. `keep` leaves the change out of the catalog, as if there were no
    instruction. `exclude` follows the source, but does not select the field.

    `drop_mapper` is for lapsed mappers alone: the mappers that name the field are removed. `apply`
    lets them follow the field to its new name, which is `became`, or else that of the field's
    removal.

    `became` is what a removed field or stream was renamed to. `cursor` and `primary_key` are a
    person's choice for the change's stream; they may be given with any of its changes.

    `keep_column` writes a renamed field into the column that it had under its former name. For a
    `mapping_conflict`, `exclude` leaves the field that came back unselected, and `apply` ends the
    renaming that has its name.
    """

    change: Change
    action: Action
    became: Path | StreamId | None = None
    cursor: Path | None = None
    primary_key: tuple[Path, ...] | None = None
    continuity: Continuity | None = None


class Effect(msgspec.Struct, frozen=True):
    """A side effect of a heal that a person should know before it is applied."""

    stream: StreamId
    code: str
    message: str


class Healed(msgspec.Struct, frozen=True):
    """The catalog to apply, and its side effects.

    Streams that are deselected because the source no longer has them come last.
    """

    catalog: bytes
    effects: tuple[Effect, ...]


class HealImpossible(InvalidCatalog):
    """The decisions lead to no catalog that Airbyte could sync; `problems` lists the reasons."""
