"""The catalogs that the fake sources offer, and how a test changes them between discoveries."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any
from uuid import UUID

import orjson

from tests.fakes.airbyte_server._catalogs import DEFAULT_CATALOG
from tests.fakes.airbyte_server._connector_failures import Failure

Json = dict[str, Any]


class Offers:
    """The catalogs of the sources; calls without a source change the default catalog."""

    def __init__(self) -> None:
        self._offered: dict[str | None, list[Any]] = {None: [DEFAULT_CATALOG]}
        self._hidden: set[tuple[str | None, str]] = set()
        self._failing_discoveries: dict[str | None, Failure] = {}

    def offers(
        self, offered: Json | bytes, *later: Json | bytes, source: str | UUID | None = None
    ) -> None:
        """Set the catalogs that discoveries return: each one once, the last one from then on.

        Bytes are a serialized catalog that is sent unchanged, for catalogs of many megabytes.
        """
        self._offered[_key(source)] = [
            orjson.Fragment(one) if isinstance(one, bytes) else one for one in (offered, *later)
        ]

    def reshape(
        self, name: str, edit: Callable[[Json], None], *, source: str | UUID | None = None
    ) -> None:
        """Change a stream's definition with `edit`, for all later discoveries."""
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
        """Add a field to a stream; `of` is its JSON schema, or the name of a nullable type."""
        self.reshape(
            name,
            lambda offered: _properties(offered).update({field: _schema(of)}),
            source=source,
        )

    def drop_field(self, name: str, field: str, *, source: str | UUID | None = None) -> None:
        """Remove a field from a stream; a stream without its cursor is no longer incremental."""

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
        """Rename a field in place; the source-defined cursor and key follow."""

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
        """Change a field's type; `of` as for `add_field`."""
        self.reshape(
            name,
            lambda offered: _properties(offered).update({field: _schema(of)}),
            source=source,
        )

    def hide(self, *names: str, source: str | UUID | None = None) -> None:
        """Hide these streams from discoveries, as when a permission is lost."""
        self._hidden |= {(_key(source), name) for name in names}

    def show(self, *names: str, source: str | UUID | None = None) -> None:
        """Show hidden streams again, unchanged."""
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
        """Make discoveries end without a catalog, with HTTP 200. `times` None: until `heal`."""
        self._failing_discoveries[_key(source)] = Failure(failure_type, message, retryable, times)

    def _next_offer(self, source_id: str) -> Any:
        """Return the catalog of one discovery, and consume it unless it is the last."""
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
