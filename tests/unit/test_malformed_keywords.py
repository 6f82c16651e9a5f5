"""No keyword of a schema that a source offers can have a value that breaks what reads it."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from services.drift_repair_agent import healing
from services.rag_engine import json_schema
from services.schema_observer import plausibility
from shared.domain import catalog, drift
from shared.domain.catalog import InvalidCatalog
from shared.domain.destination import RULES, Destination, field_type, judge, judge_stream
from shared.domain.destination._types import allows_null
from tests.unit.catalogs import Json, document, picked, stream

KEYWORDS = (
    *("type", "format", "airbyte_type", "contentEncoding", "contentMediaType", "enum", "const"),
    *("$ref", "$dynamicRef", "$id", "$anchor", "$defs", "definitions", "if", "then", "not"),
    *("oneOf", "anyOf", "allOf", "items", "prefixItems", "additionalItems", "contains"),
    *("properties", "patternProperties", "additionalProperties", "dependentSchemas", "required"),
    *("x-renamed-from", "x-renamed-to", "aliases", "renamed_from", "description", "title"),
)
VALUES = st.recursive(
    st.sampled_from([None, True, 0, -1, 1e300, "", "string", "date", "#", "#/properties/x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner),
    max_leaves=6,
)
DESTINATIONS = [Destination(), *(Destination(rules=rules) for rules in RULES)]


@given(st.sampled_from(KEYWORDS), VALUES, st.booleans(), st.booleans())
@example("format", ["date", "date-time"], True, True)
@example("oneOf", True, True, False)
@example("$ref", "#/items/" + "9" * 5000, False, True)
def test_any_value_of_a_keyword_is_read(
    keyword: str, value: Any, is_of_field: bool, is_typed: bool
) -> None:
    """In a field or in the stream's own schema: each reader gives an answer, or refuses it."""
    plain = stream(fields={"id": {"type": "string"}, "x": {"type": "string", "format": "date"}})
    field = ({"type": "string"} if is_typed else {}) | {keyword: value}
    odd = stream(fields={"id": {"type": "string"}, "x": field})
    if not is_of_field:
        odd = stream(fields={"id": {"type": "string"}})
        odd["stream"]["jsonSchema"] |= {"items": [{}], keyword: value}
    schema = odd["stream"]["jsonSchema"]
    plausibility.fields_of(schema)
    _read_as_evidence(field)
    for before, after in ((plain, odd), (odd, plain), (odd, odd)):
        _compare(before | {"config": plain["config"] | picked("id", "x")}, after)


def _read_as_evidence(schema: Json) -> None:
    json_schema.kinds(schema)
    json_schema.description(schema)
    for read in (json_schema.declared_earlier, json_schema.declared_later):
        list(read(schema))
    for read in (json_schema.noted_earlier, json_schema.noted_later):
        list(read(schema))
    field_type(schema)
    allows_null(schema)


def _compare(before: Json, after: Json) -> None:
    try:
        head = catalog.parse(document(before))
        (configured,) = head.streams
        offered = catalog.parse(document(after)).streams[0]
        for change in drift.diff(document(before), document(after)):
            drift.severity(change, configured)
            drift.severity(change, None)
            for destination in DESTINATIONS:
                judge(destination, change, configured=configured, offered=offered.stream)
        healing.plan_changes(head, document(after))
        for destination in DESTINATIONS:
            judge_stream(destination, offered, held=configured)
    except InvalidCatalog:
        pass
