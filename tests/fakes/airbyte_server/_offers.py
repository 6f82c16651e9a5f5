"""What the played sources offer, and how a test changes it from one discovery to the next."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any
from uuid import UUID

import orjson

from tests.fakes.airbyte_server._answers import Failure
from tests.fakes.airbyte_server._catalogs import DEFAULT_CATALOG

Json = dict[str, Any]


class Offers:
    """The catalogs behind the sources; where no source is named, what all others offer."""

    def __init__(self) -> None:
        self._offered: dict[str | None, list[Any]] = {None: [DEFAULT_CATALOG]}
        self._hidden: set[tuple[str | None, str]] = set()
        self._failing_discoveries: dict[str | None, Failure] = {}

    def offers(
        self, offered: Json | bytes, *later: Json | bytes, source: str | UUID | None = None
    ) -> None:
        """What discoveries find from now on; of several catalogs each is found once, the last on.

        Bytes are a catalog as JSON that goes out untouched: for catalogs of many megabytes.
        """
        self._offered[_key(source)] = [
            orjson.Fragment(one) if isinstance(one, bytes) else one for one in (offered, *later)
        ]

    def reshape(
        self, name: str, edit: Callable[[Json], None], *, source: str | UUID | None = None
    ) -> None:
        """Let `edit` change a stream's definition; discoveries find it so from now on."""
        offered = copy.deepcopy(self._offered.get(_key(source), self._offered[None])[0])
        (pair,) = [one for one in offered["streams"] if one["stream"]["name"] == name]
        edit(pair["stream"])
        pair.pop("config", None)
        self.offers(offered, source=source)

    def add_field(
        self,
        name: str,
        field: str,
        of: str | Json = "string",
        *,
        source: str | UUID | None = None,
    ) -> None:
        """A stream gains a field; `of` is its JSON schema, or a type that may be null."""
        self.reshape(
            name,
            lambda offered: _properties(offered).update({field: _schema(of)}),
            source=source,
        )

    def drop_field(self, name: str, field: str, *, source: str | UUID | None = None) -> None:
        """A stream loses a field; without its cursor it is incremental no more."""

        def edit(offered: Json) -> None:
            del _properties(offered)[field]
            key = offered["sourceDefinedPrimaryKey"]
            offered["sourceDefinedPrimaryKey"] = [path for path in key if path != [field]]
            if offered["defaultCursorField"] == [field]:
                offered.update(
                    defaultCursorField=[],
                    sourceDefinedCursor=False,
                    supportedSyncModes=["full_refresh"],
                )

        self.reshape(name, edit, source=source)

    def rename_field(
        self, name: str, field: str, to: str, *, source: str | UUID | None = None
    ) -> None:
        """A field has another name in its old place; the source's own cursor and key follow."""

        def renamed(path: list[str]) -> list[str]:
            return [to] if path == [field] else path

        def edit(offered: Json) -> None:
            offered["jsonSchema"]["properties"] = {
                to if one == field else one: of for one, of in _properties(offered).items()
            }
            offered["defaultCursorField"] = renamed(offered["defaultCursorField"])
            offered["sourceDefinedPrimaryKey"] = [
                renamed(path) for path in offered["sourceDefinedPrimaryKey"]
            ]

        self.reshape(name, edit, source=source)

    def retype_field(
        self, name: str, field: str, of: str | Json, *, source: str | UUID | None = None
    ) -> None:
        """A field has another type; `of` as for `add_field`."""
        self.reshape(
            name,
            lambda offered: _properties(offered).update({field: _schema(of)}),
            source=source,
        )

    def hide(self, *names: str, source: str | UUID | None = None) -> None:
        """Discoveries do not find these streams, as when a permission is lost."""
        self._hidden |= {(_key(source), name) for name in names}

    def show(self, *names: str, source: str | UUID | None = None) -> None:
        """Discoveries find hidden streams again, as they were."""
        self._hidden -= {(_key(source), name) for name in names}

    def fail_discovery(
        self,
        failure_type: str = "system_error",
        message: str = "Schema could not be extracted.",
        *,
        retryable: bool | None = None,
        source: str | UUID | None = None,
        times: int | None = None,
    ) -> None:
        """Discoveries end without a catalog, by HTTP 200. `times` None: until `heal`."""
        self._failing_discoveries[_key(source)] = Failure(failure_type, message, retryable, times)

    def _next_offer(self, source_id: str) -> Any:
        """What one discovery finds; it uses up a catalog that is found but once."""
        in_turn = self._offered.get(source_id, self._offered[None])
        offered = in_turn.pop(0) if len(in_turn) > 1 else in_turn[0]
        if not isinstance(offered, dict):
            return offered
        hidden = {name for key, name in self._hidden if key in (None, source_id)}
        pairs = offered.get("streams", [])
        return {"streams": [one for one in pairs if one["stream"]["name"] not in hidden]}


def _key(source: str | UUID | None) -> str | None:
    return None if source is None else str(source)


def _properties(offered: Json) -> Json:
    found: Json = offered["jsonSchema"]["properties"]
    return found


def _schema(of: str | Json) -> Json:
    return of if isinstance(of, dict) else {"type": [of, "null"]}
