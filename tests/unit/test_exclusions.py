"""What a policy never selects is found wherever a schema declares it, and left out whole."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.drift_repair_agent import healing
from services.drift_repair_agent.healing import HealImpossible, Instruction
from shared.domain import catalog
from shared.domain.catalog import Exclusions, InvalidCatalog
from tests.unit.catalogs import (
    CATALOGS,
    FIELD_NAMES,
    MOMENT,
    TEXT,
    Json,
    document,
    picked,
    stream,
    with_references,
)

MODES = {"append", "overwrite", "append_dedup", "overwrite_dedup"}
FIELDS: Json = {"id": TEXT, "updated": MOMENT, "total": TEXT}
SSN: Json = {"type": "object", "properties": {"name": TEXT, "ssn": TEXT}}
DEFAULT = Exclusions()


def hidden(pair: Json, exclusions: Exclusions = DEFAULT) -> set[str]:
    """The top-level fields that are never selected."""
    return set(exclusions.hidden(catalog.parse(document(pair)).streams[0].stream))


def having(field: Any, **members: Any) -> Json:
    """A stream with such a field, and more members of its schema."""
    made = stream(fields=FIELDS | {"contact": field})
    made["stream"]["jsonSchema"] |= members
    return made


def selected(pair: Json) -> list[str] | None:
    """The hand-picked fields; None where all are synced."""
    if not pair["config"]["fieldSelectionEnabled"]:
        return None
    return [one["fieldPath"][0] for one in pair["config"]["selectedFields"]]


# -- where it looks


@pytest.mark.parametrize(
    "field",
    [
        SSN,
        {"type": "array", "items": SSN},
        {"type": "array", "items": [{}, SSN]},
        {"type": "array", "prefixItems": [SSN]},
        {"type": "array", "additionalItems": SSN},
        {"type": "array", "contains": SSN},
        {"type": "object", "additionalProperties": SSN},
        {"type": "object", "unevaluatedProperties": SSN},
        {"type": "object", "patternProperties": {"^c_": SSN}},
        {"type": "object", "patternProperties": {"^ssn_": {}}},
        {"oneOf": [{"type": "null"}, SSN]},
        {"anyOf": [{"type": "array", "items": SSN}]},
        {"allOf": [{"allOf": [SSN]}]},
        {"if": SSN},
        {"if": {}, "then": SSN},
        {"if": {}, "else": SSN},
        {"dependentSchemas": {"a": SSN}},
        {"dependencies": {"a": SSN}},
        {"type": "object", "required": ["ssn"]},
        {"type": "object", "propertyNames": {"enum": ["ssn"]}},
        {"type": "object", "propertyNames": {"anyOf": [{"pattern": "^id"}, {"const": "ssn"}]}},
        {"type": "object", "dependentRequired": {"name": ["ssn"]}},
        {"type": "object", "dependencies": {"name": ["ssn"]}},
        {"$ref": "#/definitions/person"},
        {"$ref": "#/definitions/list"},
        {"type": ["null", "object"], "properties": {"of": {"$ref": "#/definitions/loop"}}},
        {"$ref": "#/definitions/person", "description": "Who."},
    ],
)
def test_excluded_name_is_found_anywhere_in_a_field(field: Json) -> None:
    """It excludes all of the first-level field."""
    loop = {"properties": {"next": {"$ref": "#/definitions/loop"}, "who": {"$ref": "#/$defs/p"}}}
    made = having(
        field,
        definitions={"person": SSN, "list": {"items": {"$ref": "#/$defs/p"}}, "loop": loop},
        **{"$defs": {"p": {"$ref": "#/definitions/person"}}},
    )
    assert hidden(made) == {"contact"}
    chosen = catalog.choose(document(made), streams=None, destination_sync_modes=MODES)
    [pair] = orjson.loads(catalog.dump(chosen))["streams"]
    assert selected(pair) == ["id", "updated", "total"]


@pytest.mark.parametrize(
    "reference,own,root",
    [
        ("person.json", {"$id": "person.json"}, {}),
        ("person.json", {"id": "person.json"}, {}),
        ("person.json#/properties/who", {"$id": "person.json", "properties": {"who": SSN}}, {}),
        ("person.json", {"$id": "https://a.example/person.json"}, {"$id": "https://a.example/r"}),
        ("https://a.example/person.json", {"$id": "person.json"}, {"$id": "https://a.example/r"}),
        ("#person", {"id": "#person"}, {}),
        ("#/$defs/a~1b~0c%20d", {}, {"$defs": {"a/b~c d": SSN}}),
    ],
)
def test_schema_named_by_its_id_is_searched(reference: str, own: Json, root: Json) -> None:
    """Where that schema is in the same document."""
    named = {"definitions": {"person": SSN | own}} | root
    assert hidden(having({"$ref": reference}, **named)) == {"contact"}


@pytest.mark.parametrize(
    "field",
    [
        {"type": "object", "properties": {"business_name": TEXT}},
        {"type": "string", "description": "The ssn and the password."},
        {"type": "string", "enum": ["ssn", "password"], "default": "ssn"},
        {"type": "object", "not": {"required": ["ssn"]}},
        {"$ref": "#/definitions/gone"},
        {"$ref": "https://example.com/person.json"},
    ],
)
def test_values_and_descriptions_are_no_fields(field: Json) -> None:
    """Nor is a definition that nothing refers to."""
    assert hidden(having(field, definitions={"unused": SSN})) == set()


@given(CATALOGS, st.sets(FIELD_NAMES, min_size=1, max_size=2), st.integers(0, 9999))
def test_references_hide_nothing(pairs: list[Json], names: set[str], seed: int) -> None:
    """The result is the same for a schema written in place and by references."""
    exclusions = Exclusions(names)
    for pair in pairs:
        assert hidden(pair, exclusions) == hidden(with_references(pair, seed), exclusions)


@pytest.mark.parametrize(
    "name",
    ["SSN__c", "Password_Hint__c", "".join(chr(ord(c) + 0xFEE0) for c in "password"), "PASSWORD"],
)
def test_name_is_normalized_before_matching(name: str) -> None:
    """In any case of letters, in any width of them, and escaped in JSON."""
    made = stream(fields=FIELDS | {name: TEXT})
    assert hidden(made) == {name}
    escaped = document(made).replace(
        b'"' + name.encode(), b'"\\u%04x' % ord(name[0]) + name[1:].encode()
    )
    assert DEFAULT.hidden(catalog.parse(escaped).streams[0].stream) == {name}


@pytest.mark.parametrize(
    "name,pattern,is_excluded",
    [
        ("EMPSSN__C", "*ssn*", True),
        ("CUSTSSN_ENC", "*ssn*", True),
        ("custssn_hash", "*ssn*", True),
        ("old_custssn", "*ssn", True),
        ("MySSNs", "*ssn*", True),
        ("ИНН_of_client", "*инн*", True),
        ("businessName", "*ssn*", False),
        ("ADDRESS_NUMBER", "*ssn*", False),
        ("processNames__c", "*ssn*", False),
        ("businessN", "*ssn", False),
        ("custssn_hash", "*ssn", False),
    ],
)
def test_short_pattern_matches_within_one_word(
    name: str, pattern: str, *, is_excluded: bool
) -> None:
    """At its beginning, or anywhere within it; not across two words."""
    assert Exclusions([pattern]).match(name) is is_excluded


def test_shared_definitions_are_searched_once() -> None:
    """However many fields refer to them."""
    definitions = {
        f"d{n}": {
            "properties": {f"p{k}": {"$ref": f"#/definitions/d{(n + k) % 300}"} for k in range(9)}
        }
        for n in range(300)
    }
    fields = {f"f{n}": {"$ref": f"#/definitions/d{n % 300}"} for n in range(2000)}
    made = stream(fields=FIELDS | fields)
    made["stream"]["jsonSchema"]["definitions"] = definitions | {"d7": SSN}
    began = time.process_time()
    assert hidden(made) == fields.keys()
    assert time.process_time() - began < 3


# -- choosing


def test_choice_reports_excluded_fields() -> None:
    """In a note; other streams stay as they are."""
    plain, private = stream("plain"), stream("private", FIELDS | {"ssn": TEXT, "a": SSN})
    chosen = catalog.choose_with_notes(
        document(plain, private), streams=["plain", "private"], destination_sync_modes=MODES
    )
    [note] = chosen.notes
    assert (note.code, note.stream.name, note.fields) == ("never_selected", "private", ("a", "ssn"))
    found = orjson.loads(catalog.dump(chosen.catalog))["streams"]
    assert [selected(pair) for pair in found] == [None, ["id", "updated", "total"]]


@pytest.mark.parametrize(
    "private",
    [
        stream(
            "private",
            {"ssn": TEXT, "updated": MOMENT},
            offer={"sourceDefinedPrimaryKey": [["ssn"]]},
        ),
        stream("private", {"id": TEXT, "ssn": MOMENT}, offer={"defaultCursorField": ["ssn"]}),
        stream("private", {"ssn": TEXT}, offer={"sourceDefinedPrimaryKey": []}),
        stream("private", offer={"jsonSchema": {"oneOf": [{"properties": {"id": {}, "ssn": {}}}]}}),
        stream("private", offer={"jsonSchema": {"$ref": "#/$defs/r", "$defs": {"r": SSN}}}),
        stream(
            "private", FIELDS, offer={"jsonSchema": {"properties": FIELDS, "required": ["ssn"]}}
        ),
        stream(
            "private", offer={"jsonSchema": {"properties": FIELDS, "additionalProperties": SSN}}
        ),
    ],
)
def test_stream_that_needs_an_excluded_field_is_refused(private: Json) -> None:
    """By name; unnamed, it is left out, and the others are synced."""
    offered = document(stream("plain"), private)
    with pytest.raises(InvalidCatalog, match="'private'") as refused:
        catalog.choose(offered, streams=["private"], destination_sync_modes=MODES)
    assert refused.value.code == "never_selected"
    chosen = catalog.choose_with_notes(offered, streams=None, destination_sync_modes=MODES)
    assert [one.id.name for one in chosen.catalog.streams] == ["plain"]
    assert [(note.code, note.stream.name) for note in chosen.notes] == [
        ("never_selected", "private")
    ]
    with pytest.raises(InvalidCatalog, match="No stream is left"):
        catalog.choose(document(private), streams=None, destination_sync_modes=MODES)


def test_unneeded_key_is_removed() -> None:
    """A stream that is replaced as a whole needs no key."""
    fields = {"ssn": TEXT, "updated": MOMENT}
    offered = document(stream(fields=fields, offer={"sourceDefinedPrimaryKey": [["ssn"]]}))
    chosen = catalog.choose(offered, streams=None, destination_sync_modes={"overwrite"})
    [pair] = orjson.loads(catalog.dump(chosen))["streams"]
    assert (selected(pair), pair["config"]["primaryKey"]) == (["updated"], [])


# -- merging


def test_merge_deselects_excluded_fields() -> None:
    """Whether all fields are synced or selected ones; a note names those that must stay."""
    exclusions = DEFAULT
    after = stream(fields=FIELDS | {"ssn": TEXT})
    for before, expected in (
        (stream(), ["id", "updated", "total"]),
        (stream(fields=FIELDS | {"ssn": TEXT}), ["id", "updated", "total"]),
        (
            stream(fields=FIELDS | {"ssn": TEXT}, **picked("id", "updated", "ssn")),
            ["id", "updated"],
        ),
    ):
        merged = catalog.merge(
            catalog.parse(document(before)),
            document(after),
            every_stream=True,
            exclusions=exclusions,
        )
        [pair] = orjson.loads(merged.catalog)["streams"]
        assert selected(pair) == expected
        assert [(note.code, note.fields) for note in merged.notes] == [("never_selected", ("ssn",))]

    keyed = stream(
        fields={"ssn": TEXT, "updated": MOMENT},
        offer={"sourceDefinedPrimaryKey": [["ssn"]]},
        primaryKey=[["ssn"]],
    )
    head = catalog.parse(document(keyed))
    merged = catalog.merge(head, document(keyed), every_stream=True, exclusions=exclusions)
    assert merged.catalog == document(keyed)
    [note] = merged.notes
    assert note.code == "never_selected"
    assert "cursor or in its key" in note.message


# -- healing


def healed(before: Json, after: Json, *others: Json) -> tuple[list[Json], list[str]]:
    """Every change applied by somebody who thinks of no policy."""
    head, offered = catalog.parse(document(before)), document(after, *others)
    decisions = [Instruction(c, "apply") for c, _ in healing.plan_changes(head, offered)]
    result = healing.heal(head, offered, decisions, exclusions=DEFAULT)
    return orjson.loads(result.catalog)["streams"], [effect.code for effect in result.effects]


def test_heal_never_selects_it() -> None:
    """Not as a new field, not inside one that changes, not by a rename, not in a new stream."""
    [pair], codes = healed(stream(), stream(fields=FIELDS | {"ssn": TEXT}))
    assert (selected(pair), codes) == (["id", "updated", "total"], ["fields_hand_picked"])

    old = stream(fields=FIELDS | {"who": {"type": "object", "properties": {"name": TEXT}}})
    for who in (SSN, {"type": "array", "items": SSN}, {"oneOf": [SSN, TEXT]}):
        [pair], _ = healed(old, stream(fields=FIELDS | {"who": who}))
        assert selected(pair) == ["id", "updated", "total"]

    new = stream("new", FIELDS | {"ssn": TEXT})
    pairs, codes = healed(stream(), stream(), new)
    assert selected(pairs[1]) == ["id", "updated", "total"]
    assert codes == ["stream_selected", "never_selected"]


def test_heal_keeps_excluded_fields_that_are_synced() -> None:
    """It was imported so: nothing is removed, and nothing more of the kind is added."""
    before = stream(fields=FIELDS | {"ssn": TEXT})
    [pair], codes = healed(before, stream(fields=FIELDS | {"ssn": TEXT, "a": TEXT}))
    assert (selected(pair), codes) == (None, [])
    [pair], _ = healed(before, stream(fields=FIELDS | {"ssn": TEXT, "password": TEXT}))
    assert selected(pair) == ["id", "updated", "total", "ssn"]


@pytest.mark.parametrize(
    "other",
    [
        stream(
            "new", {"ssn": TEXT, "updated": MOMENT}, offer={"sourceDefinedPrimaryKey": [["ssn"]]}
        ),
        stream("new", offer={"jsonSchema": {"anyOf": [{"properties": {"id": {}, "ssn": {}}}]}}),
    ],
)
def test_heal_that_needs_an_excluded_field_is_refused(other: Json) -> None:
    """The stream and the field are named."""
    with pytest.raises(HealImpossible, match="'ssn' of 'new'") as impossible:
        healed(stream(), stream(), other)
    assert impossible.value.code == "never_selected"

    branched = stream(offer={"jsonSchema": {"properties": FIELDS, "anyOf": [{"properties": {}}]}})
    grown = stream(
        offer={"jsonSchema": {"properties": FIELDS, "anyOf": [{"properties": {"ssn": TEXT}}]}}
    )
    with pytest.raises(HealImpossible) as impossible:
        healed(branched, grown)
    assert impossible.value.code == "never_selected"


def test_rename_to_it_is_not_selected() -> None:
    """Though the former field was on the list."""
    before = stream(**picked("id", "updated", "total"))
    after = stream(fields={"id": TEXT, "updated": MOMENT, "ssn": TEXT})
    head = catalog.parse(document(before))
    [added, gone] = [change for change, _ in healing.plan_changes(head, document(after))]
    decisions = [Instruction(added, "apply"), Instruction(gone, "apply", became=("ssn",))]
    result = healing.heal(head, document(after), decisions, exclusions=DEFAULT)
    assert selected(orjson.loads(result.catalog)["streams"][0]) == ["id", "updated"]


# -- restoring an older version


def test_older_version_is_restored_without_it() -> None:
    """Unless the connection syncs it now: then nothing is removed."""
    older = catalog.parse(document(stream(fields=FIELDS | {"ssn": TEXT})))
    head = catalog.parse(document(stream()))
    assert catalog.dump(DEFAULT.restored(older, older)) == catalog.dump(older)
    [pair] = orjson.loads(catalog.dump(DEFAULT.restored(older, head)))["streams"]
    assert selected(pair) == ["id", "updated", "total"]

    keyed = {"sourceDefinedPrimaryKey": [["ssn"]]}
    stuck = catalog.parse(
        document(stream(fields=FIELDS | {"ssn": TEXT}, offer=keyed, primaryKey=[]))
    )
    with pytest.raises(InvalidCatalog) as refused:
        DEFAULT.restored(stuck, head)
    assert refused.value.code == "never_selected"


def test_schema_of_the_source_counts_too() -> None:
    """The catalog may have less of it, or be older; a field that it does not have is ignored."""
    who: Json = {"type": "object", "properties": {"name": TEXT}}
    older = catalog.parse(document(stream(fields=FIELDS | {"who": who})))
    offered = {one.id: one.stream for one in catalog.parse(document(having(SSN))).streams}
    assert DEFAULT.synced(older.streams[0], offered=offered[older.streams[0].id]) == set()
    grown = {"who": SSN, "password": TEXT}
    offered = {
        one.id: one.stream for one in catalog.parse(document(stream(fields=FIELDS | grown))).streams
    }
    [pair] = orjson.loads(
        catalog.dump(DEFAULT.restored(older, catalog.parse(document(stream())), offered=offered))
    )["streams"]
    assert selected(pair) == ["id", "updated", "total"]
    assert catalog.dump(DEFAULT.restored(older, older, offered=offered)) == catalog.dump(older)


@pytest.mark.parametrize("schema", [{}, {"type": "object"}, {"additionalProperties": True}])
def test_schema_without_fields_selects_everything(schema: Json) -> None:
    """Excluded fields would be synced with the others."""
    [order] = catalog.parse(document(stream(offer={"jsonSchema": schema}))).streams
    [offered] = catalog.parse(document(stream(fields=FIELDS | {"ssn": TEXT}))).streams
    assert DEFAULT.synced(order, offered=offered.stream) == {"ssn"}


def test_policy_without_patterns_excludes_nothing() -> None:
    """So does one whose patterns match nothing."""
    made = stream(fields=FIELDS | {"ssn": TEXT, "birth_day": TEXT})
    assert hidden(made, Exclusions(())) == set()
    assert hidden(made, Exclusions()) == {"ssn"}
    assert hidden(made, Exclusions(["*BIRTH*"])) == {"birth_day"}
    assert hidden(made, Exclusions(("?sn", "[b]irth*", "*"))) == {*FIELDS, "ssn", "birth_day"}
