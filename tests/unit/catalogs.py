"""Catalogs for tests: one stream written by hand, and any stream that a source could offer."""

from __future__ import annotations

import random
from copy import deepcopy
from typing import Any
from urllib.parse import quote

import orjson
from hypothesis import strategies as st

Json = dict[str, Any]

TEXT: Json = {"type": ["null", "string"]}
MOMENT: Json = {"type": ["null", "string"], "format": "date-time"}


def stream(
    name: str = "orders",
    fields: Json | None = None,
    *,
    namespace: str | None = None,
    offer: Json | None = None,
    **config: Any,
) -> Json:
    """A stream with a cursor and a key, selected, incremental, deduplicated; `config` replaces."""
    definition: Json = {
        "name": name,
        "jsonSchema": {
            "type": "object",
            "properties": fields or {"id": TEXT, "updated": MOMENT, "total": TEXT},
        },
        "supportedSyncModes": ["full_refresh", "incremental"],
        "sourceDefinedCursor": True,
        "defaultCursorField": ["updated"],
        "sourceDefinedPrimaryKey": [["id"]],
    }
    if namespace is not None:
        definition["namespace"] = namespace
    configured: Json = {
        "syncMode": "incremental",
        "destinationSyncMode": "append_dedup",
        "cursorField": ["updated"],
        "primaryKey": [["id"]],
        "aliasName": name,
        "selected": True,
        "fieldSelectionEnabled": False,
        "selectedFields": [],
    }
    return {"stream": definition | (offer or {}), "config": configured | config}


def picked(*names: str) -> Json:
    """The config of a stream cut down to these fields."""
    chosen = [{"fieldPath": [name]} for name in names]
    return {"fieldSelectionEnabled": True, "selectedFields": chosen}


def document(*streams: Json) -> bytes:
    """The bytes of a syncCatalog."""
    return orjson.dumps({"streams": list(streams)})


def shuffled(value: Any, seed: int) -> Any:
    """The same JSON with its keys, and what JSON Schema or Airbyte means as a set, in any order."""
    chance = random.Random(seed)  # noqa: S311  # an order to test with, not a secret

    def walk(inner: Any, key: str | None) -> Any:
        if isinstance(inner, dict):
            pairs = [(name, walk(part, name)) for name, part in inner.items()]
            chance.shuffle(pairs)
            return dict(pairs)
        if isinstance(inner, list):
            parts = [walk(part, None) for part in inner]
            if key in {"type", "streams", "supportedSyncModes", "selectedFields", "primaryKey"}:
                chance.shuffle(parts)
            return parts
        return inner

    return walk(value, None)


NAMES = st.text(min_size=1, max_size=8).filter(lambda name: "\x00" not in name)
FIELD_NAMES = st.sampled_from(["type", "properties", "required", "items", "[]", "a.b", "é", "x"])
_BASIC = st.sampled_from(["string", "integer", "number", "boolean"])
_SCALARS = st.one_of(
    st.builds(lambda basic: {"type": ["null", basic]}, _BASIC),
    st.builds(lambda basic: {"type": basic, "description": "some"}, _BASIC),
    st.sampled_from(
        [
            MOMENT,
            {"type": "string", "format": "date"},
            MOMENT | {"airbyte_type": "timestamp_without_timezone"},
            {"enum": ["a", "b"], "type": "string"},
            {"type": "number", "multipleOf": 0.01},
            {},
            True,
        ]
    ),
)
SCHEMAS = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.builds(
            lambda fields: {"type": ["null", "object"], "properties": fields},
            st.dictionaries(FIELD_NAMES | NAMES, inner, max_size=3),
        ),
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda parts: {"oneOf": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: {"anyOf": [*parts, {"type": "null"}]}, st.lists(inner, max_size=2)),
    ),
    max_leaves=5,
)


@st.composite
def streams(draw: st.DrawFn, *, name: str | None = None) -> Json:
    """A stream as a source could offer it, configured so that Airbyte takes it."""
    fields = draw(st.dictionaries(FIELD_NAMES | NAMES, SCHEMAS, max_size=4))
    fields |= {"id": TEXT, "updated": MOMENT}
    offer: Json = {}
    if draw(st.booleans()):
        offer["isResumable"] = draw(st.booleans())
    config: Json = {}
    if draw(st.booleans()):
        config = picked("id", "updated", *draw(st.sets(st.sampled_from(sorted(fields)))))
        config["selectedFields"] = list(
            {field["fieldPath"][0]: field for field in config["selectedFields"]}.values()
        )
    return stream(
        draw(NAMES) if name is None else name,
        fields,
        namespace=draw(st.none() | st.sampled_from(["public", "sales"])),
        offer=offer,
        **config,
    )


CATALOGS = st.lists(
    streams(),
    min_size=1,
    max_size=4,
    unique_by=lambda pair: (pair["stream"].get("namespace"), pair["stream"]["name"]),
)


@st.composite
def evolutions(draw: st.DrawFn, *, name: str) -> tuple[Json, Json]:
    """A configured stream, and what its source may offer of it later."""
    before = draw(streams(name=name))
    definition, config = before["stream"], before["config"]
    reads = draw(st.sampled_from(["incremental", "incremental", "full_refresh"]))
    writes = {"incremental": ["append_dedup", "append"], "full_refresh": ["overwrite", "append"]}
    config |= {"syncMode": reads, "destinationSyncMode": draw(st.sampled_from(writes[reads]))}
    if draw(st.booleans()):
        definition |= {"sourceDefinedCursor": False, "sourceDefinedPrimaryKey": []}

    after = deepcopy(before)
    offer, fields = after["stream"], after["stream"]["jsonSchema"]["properties"]
    for field in sorted(fields):
        fate = draw(st.sampled_from(["stays", "stays", "stays", "goes", "changes"]))
        if fate == "goes":
            del fields[field]
        elif fate == "changes":
            fields[field] = draw(SCHEMAS)
    fields |= draw(st.dictionaries(FIELD_NAMES | NAMES, SCHEMAS, max_size=2))
    if draw(st.integers(0, 3)) == 0:
        offer["supportedSyncModes"] = draw(st.sampled_from([["full_refresh"], ["incremental"], []]))
    if draw(st.integers(0, 3)) == 0:
        offer["sourceDefinedCursor"] = draw(st.booleans())
        offer["defaultCursorField"] = draw(st.sampled_from([["updated"], ["x"], []]))
    if draw(st.integers(0, 3)) == 0:
        offer["sourceDefinedPrimaryKey"] = draw(st.sampled_from([[["x"]], [["id"], ["x"]], []]))
    return before, after


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Json], list[Json]]:
    """The streams of a connection, and all that its source may offer later."""
    pairs = [draw(evolutions(name=name)) for name in "abc"[: draw(st.integers(1, 3))]]
    before = [pair[0] for pair in pairs]
    after = [pair[1] for pair in pairs if draw(st.integers(0, 5))]
    if draw(st.booleans()):
        after.append(draw(streams(name="new")))
    return before, draw(st.permutations(after))


_HOISTED = ("a/b", "a~c", "50%", "é", "plain")


def with_references(pair: Json, seed: int) -> Json:
    """The same stream, with some of its schemas moved into definitions and referred to."""
    chance = random.Random(seed)  # noqa: S311  # a form to test with, not a secret
    definitions: Json = {}
    home = chance.choice(["definitions", "$defs"])

    def hoist(schema: Any) -> Any:
        hoisted = walk(schema)
        for _ in range(chance.choice([0, 0, 1, 1, 2])):
            name = f"{chance.choice(_HOISTED)}{len(definitions)}"
            definitions[name] = hoisted
            pointer = name.replace("~", "~0").replace("/", "~1")
            escaped = quote(pointer, safe="~") if chance.random() < 0.5 else pointer
            hoisted = {
                "$ref": f"#/{home}/{escaped.replace('%', '%25') if escaped == pointer else escaped}"
            }
        return hoisted

    def walk(schema: Any) -> Any:
        if not isinstance(schema, dict):
            return schema
        copied = dict(schema)
        if isinstance(schema.get("properties"), dict):
            copied["properties"] = {name: hoist(one) for name, one in schema["properties"].items()}
        if isinstance(schema.get("items"), dict):
            copied["items"] = hoist(schema["items"])
        for keyword in ("oneOf", "anyOf"):
            if keyword in schema:
                copied[keyword] = [hoist(one) for one in schema[keyword]]
        return copied

    copied = deepcopy(pair)
    copied["stream"]["jsonSchema"] = walk(pair["stream"]["jsonSchema"])
    if definitions:
        copied["stream"]["jsonSchema"][home] = definitions
    return copied
