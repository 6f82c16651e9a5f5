"""What is decided about a change, and what comes of it."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from shared.domain.catalog import InvalidCatalog, StreamId
from shared.domain.catalog._model import Path
from shared.domain.drift import Change

Action: TypeAlias = Literal["apply", "keep", "exclude"]


class Instruction(msgspec.Struct, frozen=True):
    """What to do about one change of the source.

    `apply` follows the source. `keep` leaves the catalog as it is in this respect, as does a change
    without a decision. `exclude` follows it, but the field is never selected.

    `became` says what a removed field or stream was renamed to. `cursor` and `primary_key` are a
    person's choice for the change's stream, whichever of its changes they are given with.
    """

    change: Change
    action: Action
    became: Path | StreamId | None = None
    cursor: Path | None = None
    primary_key: tuple[Path, ...] | None = None


class Effect(msgspec.Struct, frozen=True):
    """Something that comes with a heal, which a person should know before it is applied."""

    stream: StreamId
    code: str
    message: str


class Healed(msgspec.Struct, frozen=True):
    """The document to apply, and what it falls back to, follows or destroys.

    Streams that are deselected, since the source no longer has them, stand last.
    """

    catalog: bytes
    effects: tuple[Effect, ...]


class HealImpossible(InvalidCatalog):
    """The decisions lead to no catalog that Airbyte could sync; `problems` has every reason."""
