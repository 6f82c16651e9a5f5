"""Responses that were recorded from real Airbyte servers, and the members that these have.

The recordings are not part of the repository: `AIRBYTE_RECORDED_DIR` names their folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.contract.openapi import FOLDER

RECORDED = Path(os.environ.get("AIRBYTE_RECORDED_DIR") or FOLDER / "../recorded").resolve()

OPAQUE = {
    "advancedAuth",
    "connectionConfiguration",
    "connectionSpecification",
    "jsonSchema",
    "streamState",
}
"""Members whose content is defined by the connector."""


@dataclass(frozen=True)
class Recording:
    """One response of a real Airbyte."""

    name: str
    version: str
    kind: str
    endpoint: str
    status: int
    body: Any

    @property
    def release(self) -> str:
        """The emulated release that is nearest to the recorded one."""
        return "0.63.19" if self.version.startswith("0.") else "2.0.0"


def recordings() -> Iterator[Recording]:
    """Yield every recorded response, by file name."""
    for path in sorted(RECORDED.glob("*.json")):
        recorded = orjson.loads(path.read_bytes())
        yield Recording(
            path.stem,
            recorded["airbyte_version"],
            recorded["kind"],
            recorded["endpoint"],
            recorded["status"],
            recorded.get("body"),
        )


def members(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield each member's path and JSON type; nulls are members that newer releases omit."""
    if isinstance(value, dict):
        for name, each in value.items():
            if each is not None:
                yield f"{place}/{name}", type(each).__name__
                if name not in OPAQUE:
                    yield from members(each, f"{place}/{name}")
    elif isinstance(value, list):
        for each in value:
            yield from members(each, f"{place}[]")
