"""What Airbyte's refusal of a mapper says: stream, field and its error word, and nothing else.

The response repeats the mapper's configuration, which may contain an encryption key.

Source: airbyte-platform 310e6cb6ac, api-problems.yaml, ProblemMapperErrorsData and
ProblemMapperIdData; ConnectionsHandler.validateConfiguredMappers, since Airbyte 1.2.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

_PROBLEM: Final = "error:mapper-validation"
_MOST: Final = 50
_LONGEST: Final = 200
_WORD: Final = re.compile(r"[A-Z][A-Z_]{2,39}|[a-z][a-z-]{2,39}")
"""Airbyte's error words and types of mappers; anything else is not passed on."""
_NAMING: Final = ("targetField", "originalFieldName", "fieldName")


class RefusedMapper(msgspec.Struct, frozen=True, omit_defaults=True):
    """One mapper that Airbyte refuses."""

    error: str
    """Airbyte's word, such as FIELD_NOT_FOUND or secret-not-found; `unknown` for anything else."""
    type: str | None = None
    stream: str | None = None
    field: str | None = None
    """The field that the mapper works on."""


def refused_mappers(body: dict[str, Any]) -> tuple[RefusedMapper, ...] | None:
    """The mappers that a problem is about, at most 50; None if it is not about mappers."""
    kind = body.get("type")
    if not isinstance(kind, str) or not kind.startswith(_PROBLEM):
        return None
    data = body.get("data")
    data = data if isinstance(data, dict) else {}
    reason = kind.removeprefix(_PROBLEM).removeprefix("/")
    if reason:
        return (RefusedMapper(_word(reason) or "unknown", _word(data.get("mapperType"))),)
    errors = data.get("errors")
    listed = errors if isinstance(errors, list) else []
    found = [_mapper(one) for one in listed if isinstance(one, dict)]
    return tuple(found[:_MOST]) or (RefusedMapper("unknown"),)


def _mapper(error: dict[str, Any]) -> RefusedMapper:
    mapper = error.get("mapper")
    mapper = mapper if isinstance(mapper, dict) else {}
    return RefusedMapper(
        _word(error.get("error")) or "unknown",
        _word(mapper.get("type")),
        _name(error.get("stream")),
        _field(mapper.get("mapperConfiguration")),
    )


def _field(config: Any) -> str | None:
    if not isinstance(config, dict):
        return None
    return next((_name(config[key]) for key in _NAMING if isinstance(config.get(key), str)), None)


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None


def _name(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    return "".join(character for character in value[:_LONGEST] if character.isprintable())
