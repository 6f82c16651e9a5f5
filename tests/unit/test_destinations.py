"""What destinations can hold: the names, limits and types of each kind, and verdicts on changes."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import catalog
from shared.domain.catalog import ConfiguredStream, StreamId
from shared.domain.destination import (
    DEFINITIONS,
    GROUPS,
    REMOVED,
    RETYPED,
    RULES,
    UNKNOWN,
    Destination,
    Finding,
    Judgement,
    Naming,
    Rules,
    StreamJudge,
    columns,
    field_type,
    identify,
    judge,
    judge_stream,
    judge_tables,
    shared_tables,
    tables,
    unfit_fields,
)
from shared.domain.drift import diff
from tests.unit.catalogs import MOMENT, TEXT, document, picked, stream

Json = dict[str, Any]

INT: Json = {"type": ["null", "integer"]}
NUM: Json = {"type": ["null", "number"]}
OBJECT: Json = {"type": ["null", "object"], "properties": {"v": TEXT}}
ARRAY: Json = {"type": ["null", "array"], "items": TEXT}
KEYS: Json = {"id": TEXT, "updated": MOMENT}
_IDS = {kind: definition for definition, kind in DEFINITIONS.items()}


def at(kind: str, tag: str, **more: Any) -> Destination:
    """A destination of this kind and version."""
    return identify(_IDS[kind], f"airbyte/destination-{kind}", tag, **more)


def _read(pair: Json) -> ConfiguredStream:
    return catalog.parse(document(pair)).streams[0]


def judged(destination: Destination, before: Json, after: Json) -> Judgement:
    """The findings about every change between two states of a stream."""
    findings: list[Finding] = []
    configured, offered = _read(before), _read(after)
    for change in diff(document(before), document(after)):
        one = judge(destination, change, configured=configured, offered=offered.stream)
        findings += one.findings
    return Judgement.of(destination, findings)


def fields(destination: Destination, old: Json, new: Json, **config: Any) -> Judgement:
    """The verdict on the change of a stream's fields, key and cursor aside."""
    return judged(
        destination, stream(fields=KEYS | old, **config), stream(fields=KEYS | new, **config)
    )


def added(destination: Destination, *names: str, **config: Any) -> Judgement:
    """The verdict on new text fields."""
    return fields(destination, {}, dict.fromkeys(names, TEXT), **config)


def returned(destination: Destination, *states: Json, **config: Any) -> Judgement:
    """The verdict on the last of these states of the fields; the ones before it were synced."""
    *former, held, offered = (stream(fields=KEYS | one, **config) for one in states)
    judging = StreamJudge(
        destination,
        configured=_read(held),
        offered=_read(offered).stream,
        former=[_read(one) for one in reversed(former)],
    )
    changes = diff(document(held), document(offered))
    return Judgement.of(
        destination, [found for change in changes for found in judging.judge(change).findings]
    )


def retyped(destination: Destination, old: Json, new: Json) -> Judgement:
    """The verdict on another type of a plain field."""
    return fields(destination, {"field": old}, {"field": new})


def named(destination: Destination, *names: str) -> list[str | None]:
    """The columns of fields in this order."""
    return [column.name for column in columns(destination.rules, names)]


# The examples, in the order of their table


def test_plain_field_is_safe() -> None:
    """1: ADD COLUMN, nothing else changes."""
    assert added(at("postgres", "3.0.14"), "email").verdict == "safe"


def test_second_field_of_one_column_gets_a_number() -> None:
    """2: the clash ignores case, and the new field comes after the old one."""
    found = fields(at("postgres", "3.0.14"), {"foo": TEXT}, {"foo": TEXT, "Foo": TEXT})
    assert (found.verdict, found.code) == ("ask", "column_clash")
    assert found.findings[0].names == ("foo", "Foo")
    assert "'Foo_1'" in found.message


@pytest.mark.parametrize("twin", ["email", "EMAIL", "first_name", "First-Name", "É-mail"])
@pytest.mark.parametrize("kind, tag", [("postgres", "3.0.14"), ("redshift", "4.0.5")])
def test_twins_of_a_field(kind: str, tag: str, twin: str) -> None:
    """By case, characters and accents; both names are in the message."""
    old = {"Email": TEXT, "First Name": TEXT, "E-mail": TEXT}
    found = fields(at(kind, tag), old, old | {twin: TEXT})
    assert (found.verdict, found.code) == ("ask", "column_clash")
    assert all(repr(name) in found.message for name in found.findings[0].names)
    assert found.findings[0].names[1] == twin


def test_earlier_field_takes_the_column_of_another() -> None:
    """3: placed before the old field, the new one takes its column."""
    old = {"userId": TEXT}
    found = fields(at("snowflake", "4.0.49"), old, {"USERID": TEXT} | old)
    assert (found.verdict, found.code) == ("refuse", "column_moves")
    assert "'userId'" in found.message
    assert "'USERID_1'" in found.message


def test_exact_comparison_over_a_case_blind_engine_fails() -> None:
    """4: Databricks' connector sees two columns, Delta one."""
    found = fields(at("databricks", "4.0.5"), {"Foo": TEXT}, {"Foo": TEXT, "foo": TEXT})
    assert (found.verdict, found.code) == ("refuse", "column_clash")
    assert found.findings[0].names == ("Foo", "foo")


@pytest.mark.parametrize(
    "kind, tag, verdict, made",
    [
        ("redshift", "4.0.5", "ask", ["___", "____1"]),
        ("snowflake", "4.0.49", "safe", ["ИМЯ", "ГОД"]),
    ],
)
def test_letters_outside_ascii(kind: str, tag: str, verdict: str, made: list[str]) -> None:
    """5 and 6: most destinations keep ASCII only."""
    assert added(at(kind, tag), "имя", "год").verdict == verdict
    assert named(at(kind, tag), "имя", "год") == made


def test_numbers_skip_names_that_are_taken() -> None:
    """7: and the result depends on the order, which is the source's."""
    postgres = at("postgres", "3.0.14")
    assert named(postgres, "a-b", "a b", "a_b_1") == ["a_b", "a_b_1", "a_b_1_1"]
    assert named(postgres, "a_b_1", "a-b", "a b") == ["a_b_1", "a_b", "a_b_2"]
    assert added(postgres, "a-b", "a b", "a_b_1").verdict == "ask"


LONG = "this_is_a_column_with_an_overly_exceedingly_long_name_in_airtable_base_one"


@pytest.mark.parametrize(
    "kind, tag, field, verdict, made",
    [
        (
            "postgres",
            "3.0.14",
            LONG,
            "ask",
            "this_is_a_column_with_an_overly_exceedingly_long_name__57551268",
        ),
        ("redshift", "4.0.5", "x" * 130, "ask", "x" * 118 + "_bf0bcf00"),
        ("bigquery", "3.1.0", "x" * 301, "refuse", "x" * 301),
    ],
)
def test_long_names(kind: str, tag: str, field: str, verdict: str, made: str) -> None:
    """8 to 10: cut with a hash, or refused by the database."""
    assert named(at(kind, tag), field) == [made]
    assert added(at(kind, tag), field).verdict == verdict


@pytest.mark.parametrize(
    "kind, tag, field, verdict",
    [
        ("bigquery", "2.10.0", "_airbyte_meta", "refuse"),
        ("postgres", "3.0.14", "_airbyte_meta", "ask"),
        ("snowflake", "4.0.38", "localtime", "refuse"),
        ("postgres", "3.0.14", "_ab_cdc_deleted_at", "refuse"),
        ("redshift", "4.0.5", "_ab_cdc_deleted_at", "refuse"),
        ("snowflake", "4.0.49", "row_number", "ask"),
        ("bigquery", "3.1.0", "_TABLE_suffix", "refuse"),
        ("mssql", "2.2.15", "a]b", "refuse"),
        ("postgres", "3.0.14", "xmin", "refuse"),
    ],
)
def test_reserved_names(kind: str, tag: str, field: str, verdict: str) -> None:
    """11 to 15, in a deduplicated stream."""
    found = added(at(kind, tag), field)
    assert (found.verdict, found.code) == (verdict, "reserved_name")


def test_names_that_matter_to_deduplication_alone() -> None:
    """In an appended stream `row_number` is a field like any other, and no row is deleted."""
    snowflake = at("snowflake", "4.0.49")
    appended = {"destinationSyncMode": "append"}
    assert added(snowflake, "row_number", **appended).verdict == "safe"
    assert added(snowflake, "_ab_cdc_deleted_at", **appended).verdict == "ask"
    captured = {"_ab_cdc_lsn": NUM}
    found = fields(snowflake, captured, captured | {"_ab_cdc_deleted_at": TEXT})
    assert found.verdict == "safe"


@pytest.mark.parametrize(
    "kind, tag, old, new, verdict",
    [
        ("postgres", "3.0.14", INT, NUM, "safe"),
        ("snowflake", "4.0.49", INT, NUM, "ask"),
        ("s3-data-lake", "0.3.40", INT, NUM, "refuse"),
        ("s3-data-lake", "0.3.40", TEXT, MOMENT, "refuse"),
        ("redshift", "4.0.5", TEXT, INT, "ask"),
        ("databricks", "4.0.5", ARRAY, OBJECT, "safe"),
        ("postgres", "3.0.14", TEXT, OBJECT, "ask"),
        ("clickhouse", "2.1.27", MOMENT, MOMENT | {"airbyte_type": "timestamp_without_timezone"},
         "safe"),
        ("motherduck", "0.2.0", INT, NUM, "ask"),
        ("postgres", "3.0.14", {"type": "string"}, TEXT, "safe"),
    ],
)  # fmt: skip
def test_retypes(kind: str, tag: str, old: Json, new: Json, verdict: str) -> None:
    """16 to 20: by the columns' types, and by the casts that lose nothing."""
    assert retyped(at(kind, tag), old, new).verdict == verdict


@pytest.mark.parametrize(
    "kind, tag, verdict, code",
    [
        ("snowflake", "4.0.40", "ask", "column_dropped"),
        ("snowflake", "4.0.47-rc.1", "ask", "column_dropped"),
        ("snowflake", "4.0.47", "safe", "column_kept"),
        ("postgres", "3.0.13", "ask", "column_dropped"),
        ("postgres", "3.0.14", "safe", "column_kept"),
        ("postgres", "2.4.0", "ask", "column_rebuilt"),
        ("clickhouse", "2.1.27", "ask", "column_dropped"),
        ("databricks", "4.0.0", "ask", "column_dropped"),
        ("redshift", "4.0.4", "ask", "column_dropped"),
        ("redshift", "4.0.5", "safe", "column_kept"),
        ("postgres", "1.0.0", "ask", "column_fate_unknown"),
    ],
)
def test_removed_fields(kind: str, tag: str, verdict: str, code: str) -> None:
    """21 and 22: a column is kept, dropped with its history, or rebuilt, by version."""
    found = fields(at(kind, tag), {"total": NUM}, {})
    assert (found.verdict, found.code) == (verdict, code)


def test_dropped_column_names_the_version_that_keeps_it() -> None:
    """21: so that an upgrade is an alternative."""
    found = fields(at("snowflake", "4.0.40"), {"total": NUM}, {})
    assert found.message == (
        "Snowflake 4.0.40 drops the column 'TOTAL' with its history; 4.0.47 keeps it."
    )


def test_key_of_another_type_is_refused() -> None:
    """22: ClickHouse refuses it with code 524."""
    clickhouse = at("clickhouse", "2.1.27")
    found = judged(clickhouse, stream(fields=KEYS | {"id": INT}), stream(fields=KEYS))
    assert (found.verdict, found.code) == ("refuse", "key_retyped")


@pytest.mark.parametrize(
    "kind, tag, verdict",
    [
        ("bigquery", "3.0.21", "refuse"),
        ("bigquery", "3.0.20", "safe"),
        ("postgres", "3.0.14", "refuse"),
        ("motherduck", "0.2.0", "ask"),
    ],
)
def test_key_that_may_be_null(kind: str, tag: str, verdict: str) -> None:
    """23: a null key matches no other one in most MERGE statements."""
    before = stream(fields=KEYS | {"id": {"type": "string"}})
    assert judged(at(kind, tag), before, stream(fields=KEYS)).verdict == verdict


@pytest.mark.parametrize("kind", ["bigquery", "snowflake", "postgres", "redshift"])
@pytest.mark.parametrize("key", [["data", "id"], ["data"]])
def test_nested_and_complex_keys_are_refused(kind: str, key: list[str]) -> None:
    """24: the first part of the path would silently be the key, or the values not comparable."""
    tag = next(one.since for one in RULES if one.kind == kind)
    data = {"type": ["null", "object"], "properties": {"id": TEXT}}
    before = stream(fields=KEYS | {"data": data})
    after = stream(fields=KEYS | {"data": data}, offer={"sourceDefinedPrimaryKey": [key]})
    assert judged(at(kind, tag), before, after).verdict == "refuse"
    configured = _read(stream(fields=KEYS | {"data": data}, primaryKey=[key]))
    found = judge_stream(at(kind, tag), configured)
    assert (found.verdict, found.code) == (
        "refuse",
        "nested_key" if len(key) > 1 else "complex_key",
    )


def _ids(*names: str) -> list[StreamId]:
    return [StreamId(*one.split(".")) if "." in one else StreamId(None, one) for one in names]


DESTINATION_SCHEMA = Naming(definition="destination")


def test_streams_of_one_name_fail_the_sync() -> None:
    """25 (a): two namespaces in one schema."""
    postgres = at("postgres", "3.0.14", default_schema="public")
    made = tables(postgres, _ids("sales.orders", "web.orders"), DESTINATION_SCHEMA)
    found = judge_tables(postgres, made)
    assert [one.verdict for one in found.values()] == ["refuse"]
    assert found[StreamId("web", "orders")].findings[0].names == ("'sales.orders'", "'web.orders'")


def test_streams_of_one_table_get_a_suffix() -> None:
    """25 (b): two names that the destination makes one."""
    postgres = at("postgres", "3.0.14", default_schema="public")
    made = tables(postgres, _ids("my-table", "my_table"), DESTINATION_SCHEMA)
    assert [str(table) for table in made] == ["public.my_table", "public.my_table_89c"]
    assert [one.verdict for one in judge_tables(postgres, made).values()] == ["ask"]


def test_two_connections_with_one_table() -> None:
    """25 (c): the message names both streams and the other connection."""
    postgres = at("postgres", "3.0.14", default_schema="public")
    ours = tables(postgres, _ids("my-table"), DESTINATION_SCHEMA)
    theirs = tables(postgres, _ids("other", "public.my_table"), Naming())
    found = list(shared_tables(postgres, ours, theirs, connection="crm"))
    assert [(one, judgement.verdict) for one, judgement in found] == [
        (StreamId(None, "my-table"), "refuse")
    ]
    message = found[0][1].message
    assert "'my-table'" in message
    assert "'public.my_table'" in message
    assert "'crm'" in message
    assert "public.my_table:" in message


def test_more_than_the_examples() -> None:
    """What is not known asks, camelCase in MotherDuck, and the 1,597th column of Postgres."""
    unknown = identify(uuid4(), "example/destination-own", "1.0.0")
    assert added(unknown, "email").code == "unknown_destination"
    assert added(at("motherduck", "0.2.0"), "userId").verdict == "ask"
    assert added(at("motherduck", "0.2.0"), "user_id").verdict == "safe"
    postgres = at("postgres", "3.0.14")
    many = {f"f{number}": TEXT for number in range(1_596 - len(KEYS) - 1)}
    assert fields(postgres, many, many | {"one": TEXT}).code == "nearly_too_many_columns"
    many["f"] = TEXT
    found = fields(postgres, many, many | {"one": TEXT})
    assert (found.verdict, found.code) == ("refuse", "too_many_columns")


# Which destination it is


def test_definition_before_repository() -> None:
    """A definition decides; else the image does, whatever registry it is from."""
    assert identify(_IDS["mssql"], "airbyte/destination-postgres", "2.0.0").kind == "mssql"
    other = identify(uuid4(), "registry.example:5000/airbyte/destination-postgres", "3.0.14")
    assert other.kind == "postgres"
    alias = identify(uuid4(), "airbyte/destination-postgres-strict-encrypt", "2.4.1")
    assert (alias.kind, alias.rules.generation) == ("postgres", "typing-deduping")
    assert identify(uuid4(), "example/postgres", "3.0.14").kind == UNKNOWN


@pytest.mark.parametrize(
    "kind, tag, generation",
    [
        ("postgres", "3.0.0", "direct-load"),
        ("postgres", "3.0.0-rc.2", "typing-deduping"),
        ("postgres", "0.6.3", "normalization"),
        ("snowflake", "3.15.4", "typing-deduping"),
        ("redshift", "3.5.3", "typing-deduping"),
        ("databricks", "1.1.2", "unknown"),
        ("clickhouse", "1.0.0", "unknown"),
        ("postgres", "dev", "unknown"),
        ("postgres", "3.0", "unknown"),
    ],
)
def test_generation_by_version(kind: str, tag: str, generation: str) -> None:
    """A candidate is older than its release; a tag that is no version makes it unknown."""
    assert at(kind, tag).rules.generation == generation


def test_each_generation_has_sources_for_its_facts() -> None:
    """And no two of one kind overlap."""
    for rules in RULES:
        assert set(rules.sources) == set(GROUPS), rules.kind
        tag = rules.since if rules.since != "0.0.0" else "0.1.0"
        assert at(rules.kind, tag).rules is rules
        assert rules.retype in RETYPED
        assert {value for _, value in rules.removed.values} <= REMOVED.keys()


@pytest.mark.parametrize(
    "schema, type_",
    [
        (TEXT, "string"),
        (TEXT | {"format": "email"}, "string"),
        (MOMENT, "timestamp_tz"),
        (MOMENT | {"airbyte_type": "timestamp_without_timezone"}, "timestamp"),
        ({"type": "string", "format": "time"}, "time_tz"),
        (NUM | {"airbyte_type": "integer"}, "integer"),
        ({"type": ["string", "integer", "null"]}, "union"),
        ({"oneOf": [TEXT]}, "string"),
        ({"anyOf": [TEXT, INT]}, "union"),
        ({"anyOf": [INT, {"type": "null"}]}, "integer"),
        ({}, "object"),
        ({"type": "null"}, UNKNOWN),
        ({"type": "decimal"}, UNKNOWN),
        ({"$ref": "#/definitions/x"}, UNKNOWN),
        ({"$ref": "WellKnownTypes.json#/definitions/TimestampWithoutTimezone"}, "timestamp"),
        (True, UNKNOWN),
    ],
)
def test_types_of_fields(schema: Any, type_: str) -> None:
    """As the CDK reads a jsonSchema."""
    assert field_type(schema) == type_


# Names and tables


def test_a_suffix_that_is_cut_away() -> None:
    """Typing-deduping Postgres cuts without a hash: the middle is replaced by its length."""
    name = "x" * 70
    first, second = named(at("postgres", "2.4.0"), name, name + "y")
    assert first == "x" * 63
    assert second == "x" * 29 + "13" + "x" * 28 + "y"


def test_selection_and_mappers_decide_about_columns() -> None:
    """A field that is not selected has no column, and a renamed one that of its new name."""
    postgres = at("postgres", "3.0.14")
    unselected = picked("id", "updated", "new")
    assert fields(
        postgres, {"Email": TEXT}, {"Email": TEXT, "email": TEXT}, **unselected
    ).verdict == ("safe")
    renaming = {
        "type": "field-renaming",
        "mapperConfiguration": {"originalFieldName": "e", "newFieldName": "Email"},
    }
    found = fields(postgres, {"e": TEXT}, {"e": TEXT, "email": TEXT}, mappers=[renaming])
    assert found.findings[0].names == ("Email", "email")


def test_order_of_unfit_fields_counts_as_a_change() -> None:
    """Two fields that swap their columns are refused; of others the order does not matter."""
    postgres = at("postgres", "3.0.14")
    pair = {"Foo": TEXT, "foo": TEXT}
    swapped = {"foo": TEXT, "Foo": TEXT, "more": TEXT}
    assert fields(postgres, pair, swapped).code == "column_moves"
    assert fields(postgres, {"a": TEXT, "b": TEXT}, {"c": TEXT, "b": TEXT, "a": TEXT}).verdict == (
        "safe"
    )


def test_removal_that_frees_a_column() -> None:
    """The second field moves to the column of the first."""
    postgres = at("postgres", "3.0.14")
    found = fields(postgres, {"Foo": TEXT, "foo": TEXT}, {"foo": TEXT})
    assert (found.verdict, found.code) == ("refuse", "column_moves")


KEEPING = [
    ("postgres", "3.0.14"),
    ("snowflake", "4.0.47"),
    ("redshift", "4.0.5"),
    ("databricks", "4.0.1"),
]


@pytest.mark.parametrize("kind, tag", KEEPING)
def test_field_that_comes_back_with_another_type_meets_its_column(kind: str, tag: str) -> None:
    """The kept column has the type of the newest sync of the field."""
    keeping = at(kind, tag)
    found = returned(keeping, {"status": TEXT}, {}, {"status": INT})
    assert [(one.verdict, one.code) for one in found.findings] == [("ask", "column_retyped")]
    assert "'status'" in found.message
    assert returned(keeping, {"status": TEXT}, {}, {"status": TEXT}).verdict == "safe"
    assert returned(keeping, {"status": TEXT}, {"status": INT}, {}, {"status": INT}).verdict == (
        "safe"
    )
    assert returned(keeping, {"status": TEXT}, {"other": TEXT}, {"new": INT}).code == "column_kept"


def test_field_that_would_be_written_into_the_column_of_a_removed_one() -> None:
    """The values of two fields would be mixed, whatever their types."""
    postgres = at("postgres", "3.0.14")
    found = returned(postgres, {"имя": TEXT}, {}, {"год": TEXT})
    (one,) = found.findings
    assert (one.verdict, one.code) == ("ask", "column_reused")
    assert (one.names, one.columns) == (("имя", "год"), ("___",))
    assert "has kept the column '___' of 'имя'" in one.message
    other = returned(postgres, {"Email": TEXT}, {}, {"email": INT})
    assert [one.code for one in other.findings] == ["column_reused", "column_retyped"]
    again = returned(postgres, {"имя": TEXT}, {}, {"год": TEXT}, {}, {"имя": TEXT})
    assert again.verdict == "safe"
    in_use = returned(postgres, {"имя": TEXT}, {"год": TEXT}, {"год": TEXT, "имя": TEXT})
    assert in_use.code == "column_clash"


def test_former_columns_matter_only_where_they_are_kept() -> None:
    """A table that each sync makes again has none of them, nor has one of another version."""
    states: list[Json] = [{"имя": TEXT, "status": TEXT}, {}, {"год": TEXT, "status": INT}]
    assert returned(at("postgres", "3.0.14"), *states).verdict == "ask"
    assert returned(at("postgres", "3.0.13"), *states).verdict == "safe"
    assert returned(at("bigquery", "3.0.0"), *states).verdict == "safe"
    assert returned(at("postgres", "3.0.14", is_raw_only=True), *states).verdict == "safe"
    made_again = returned(at("postgres", "3.0.14"), *states, destinationSyncMode="overwrite")
    assert made_again.verdict == "safe"


def test_former_columns_count_towards_the_limit() -> None:
    """As far as the new fields are not written to them."""
    postgres = at("postgres", "3.0.14")
    many = {f"f{number}": TEXT for number in range(1500)}
    assert returned(postgres, many, {}, {"new": TEXT}).code == "nearly_too_many_columns"
    more = {f"g{number}": TEXT for number in range(200)}
    assert returned(postgres, many, {}, more).code == "too_many_columns"
    assert returned(postgres, {"new": TEXT}, {}, {"new": TEXT}).verdict == "safe"


def test_former_columns_of_mapped_fields() -> None:
    """A column is that of the field's name in the destination, then and now."""
    postgres = at("postgres", "3.0.14")
    renaming = {
        "type": "field-renaming",
        "mapperConfiguration": {"originalFieldName": "mail", "newFieldName": "email"},
    }
    former = _read(stream(fields=KEYS | {"mail": TEXT}, mappers=[renaming]))
    held, offered = stream(fields=KEYS), stream(fields=KEYS | {"email": TEXT, "mail": TEXT})
    judging = StreamJudge(
        postgres, configured=_read(held), offered=_read(offered).stream, former=[former]
    )
    found = {
        change.path: judging.judge(change).code
        for change in diff(document(held), document(offered))
    }
    assert found == {("email",): "column_reused", ("mail",): "fits"}


def test_stream_that_comes_back_meets_its_columns() -> None:
    """A destination keeps the table of a stream that is no longer synced."""
    postgres = at("postgres", "3.0.14")
    former = _read(stream(fields=KEYS | {"имя": TEXT, "status": TEXT}))
    for fields_, codes in (
        ({"год": TEXT, "status": INT}, ["column_reused", "column_retyped"]),
        ({"имя": TEXT, "status": TEXT}, []),
    ):
        offered = _read(stream(fields=KEYS | fields_)).stream
        judging = StreamJudge(postgres, configured=None, offered=offered, former=[former])
        (change,) = diff(document(), document(stream(fields=KEYS | fields_)))
        assert [one.code for one in judging.judge(change).findings] == codes


def test_callers_catalog_meets_former_columns() -> None:
    """Only fields that the connection does not sync yet."""
    postgres = at("postgres", "3.0.14")
    former = [_read(stream(fields=KEYS | {"имя": TEXT}))]
    held, wanted = _read(stream(fields=KEYS)), _read(stream(fields=KEYS | {"год": TEXT}))
    assert judge_stream(postgres, wanted, held=held, former=former).code == "column_reused"
    assert judge_stream(postgres, wanted, former=former).code == "column_reused"
    assert judge_stream(postgres, wanted, held=wanted, former=former).verdict == "safe"
    made_again = _read(stream(fields=KEYS | {"год": TEXT}, destinationSyncMode="overwrite"))
    assert judge_stream(postgres, made_again, held=held, former=former).verdict == "safe"


def test_raw_tables_hold_any_field() -> None:
    """Columns, types and keys do not matter; two streams of one table still do."""
    raw = at("postgres", "3.0.14", default_schema="public", is_raw_only=True)
    assert fields(raw, {"foo": TEXT, "total": NUM}, {"foo": NUM, "Foo": TEXT}).verdict == "safe"
    made = tables(raw, _ids("sales.orders", "web.orders"), DESTINATION_SCHEMA)
    assert judge_tables(raw, made)


@pytest.mark.parametrize(
    "naming, place",
    [
        (Naming(), ("sales", "orders")),
        (Naming(prefix="crm_"), ("sales", "crm_orders")),
        (Naming(prefix="  "), ("sales", "orders")),
        (Naming(definition="destination"), ("public", "orders")),
        (Naming(definition="customformat", format="x_${SOURCE_NAMESPACE}"), ("x_sales", "orders")),
        (Naming(definition="customformat", format=""), ("public", "orders")),
    ],
)
def test_places_of_tables(naming: Naming, place: tuple[str, str]) -> None:
    """Schema and table by the connection's settings."""
    postgres = at("postgres", "3.0.14", default_schema="public")
    assert tables(postgres, [StreamId("sales", "orders")], naming)[0].place == place


def test_streams_alike_but_for_case() -> None:
    """One table where names are folded, two where they are quoted as they are."""
    ids = _ids("Center", "center")
    for kind, tag, verdicts in (
        ("snowflake", "4.0.49", ["ask"]),
        ("postgres", "3.0.14", []),
        ("mssql", "2.2.15", ["ask"]),
    ):
        destination = at(kind, tag)
        found = judge_tables(destination, tables(destination, ids, Naming()))
        assert [one.verdict for one in found.values()] == verdicts, kind
    unknown = identify(None, None, None)
    found = judge_tables(unknown, tables(unknown, ids, Naming()))
    assert [one.verdict for one in found.values()] == ["ask"]


def test_fields_that_a_new_stream_is_synced_without() -> None:
    """The second of a clash and what is refused; a name that is only cut is selected."""
    names = {"Email": TEXT, "email": TEXT, "xmin": TEXT, LONG: TEXT}
    unfit = unfit_fields(at("postgres", "3.0.14"), _read(stream(fields=KEYS | names)))
    assert set(unfit) == {"email", "xmin"}
    unfit = unfit_fields(identify(None, None, None), _read(stream(fields=KEYS | names)))
    assert set(unfit) == {"email"}


def test_stream_that_is_held_is_not_judged_again() -> None:
    """Only what is new to the connection counts."""
    databricks = at("databricks", "4.0.5")
    held = _read(stream(fields=KEYS | {"Foo": TEXT, "foo": TEXT}))
    more = _read(stream(fields=KEYS | {"Foo": TEXT, "foo": TEXT, "bar": TEXT}))
    assert judge_stream(databricks, held).verdict == "refuse"
    assert judge_stream(databricks, held, held=held).verdict == "safe"
    assert judge_stream(databricks, more, held=held).verdict == "safe"


# Without a destination: what none takes


def _chosen(*pairs: Json) -> list[ConfiguredStream]:
    modes = {"append", "overwrite", "append_dedup"}
    chosen = catalog.choose(document(*pairs), streams=None, destination_sync_modes=modes)
    return list(chosen.streams)


@pytest.mark.parametrize(
    "key, is_deduplicated",
    [
        ([["data", "id"]], False),
        ([["data"]], False),
        ([["tags"]], False),
        ([["a.b"], ["id"]], True),
    ],
)
def test_default_selection_does_not_deduplicate_by_such_a_key(
    key: list[list[str]], is_deduplicated: bool
) -> None:
    """A nested path, an object or an array; a name with a dot is accepted."""
    fields_ = KEYS | {"data": OBJECT | {"properties": {"id": TEXT}}, "tags": ARRAY, "a.b": INT}
    (one,) = _chosen(stream(fields=fields_, offer={"sourceDefinedPrimaryKey": key}))
    assert (one.config.destination_sync_mode == "append_dedup") is is_deduplicated


@pytest.mark.parametrize("field", ["data", "tags"])
@pytest.mark.parametrize(
    "config, code",
    [
        ({"primaryKey": [["{}"]]}, "compound_key"),
        ({"cursorField": ["{}"]}, "compound_cursor"),
        ({"cursorField": ["{}"], "destinationSyncMode": "append"}, "compound_cursor"),
    ],
)
def test_compound_key_or_cursor_is_invalid(field: str, config: Json, code: str) -> None:
    """Airbyte accepts it, and each sync fails or compares what has no order."""
    settings = msgspec.json.decode(msgspec.json.encode(config).replace(b"{}", field.encode()))
    source = {"sourceDefinedCursor": False, "defaultCursorField": []}
    pair = stream(fields=KEYS | {"data": OBJECT, "tags": ARRAY}, offer=source, **settings)
    with pytest.raises(catalog.InvalidCatalog) as refused:
        catalog.validate(catalog.parse(document(pair)))
    assert refused.value.code == code


# Properties

_NAMES = st.text(st.sampled_from("aAbB_-1 é$я"), min_size=1, max_size=6)
_KNOWN = st.sampled_from(RULES)
_SCHEMAS = st.sampled_from([TEXT, INT, NUM, OBJECT, ARRAY, MOMENT, {"type": ["string", "integer"]}])


@given(rules=_KNOWN, names=st.lists(_NAMES, unique=True, max_size=6))
def test_each_column_has_a_name_of_its_own(rules: Rules, names: list[str]) -> None:
    """As the database compares them; the first of each clash has the name without a number."""
    made = columns(rules, names)
    assert [column.field for column in made] == names
    exact = (rules.engine_compare or rules.compare) == "exact"
    named = [c.name if exact else c.name.casefold() for c in made if c.name is not None]
    assert len(named) == len(set(named))
    assert all(column.name is not None or column.clashes_with is not None for column in made)


@given(rules=_KNOWN, names=st.lists(_NAMES, unique=True, max_size=6), data=st.data())
def test_order_matters_to_unfit_fields_alone(
    rules: Rules, names: list[str], data: st.DataObject
) -> None:
    """Without a clash every order of the fields leads to the same columns."""
    made = columns(rules, names)
    if any(column.clashes_with is not None for column in made):
        return
    other = columns(rules, data.draw(st.permutations(names)))
    assert {c.field: c.name for c in other} == {c.field: c.name for c in made}


@given(before=_SCHEMAS, after=_SCHEMAS, new=_NAMES)
def test_an_unknown_destination_is_never_safe_and_never_refuses(
    before: Json, after: Json, new: str
) -> None:
    """Whatever the change."""
    unknown = identify(uuid4(), None, "1.0.0")
    for one in (retyped(unknown, before, after), added(unknown, new)):
        assert one.verdict == "ask" or not one.findings
    assert added(unknown, new).verdict == "ask"


@given(
    rules=_KNOWN,
    missing=st.sampled_from(["types", "removed", "retype", "column_clash", "null_key"]),
)
def test_a_missing_fact_is_never_safe(rules: Rules, missing: str) -> None:
    """Each fact that a change depends on, replaced by `unknown`."""
    blank = getattr(Rules(), missing)
    known = msgspec.structs.replace(rules, safe_types=frozenset(), **{missing: blank})
    destination = Destination(rules=known, version=rules.since)
    found = {
        "types": lambda: retyped(destination, INT, NUM),
        "removed": lambda: fields(destination, {"total": NUM}, {}),
        "retype": lambda: retyped(destination, TEXT, INT),
        "column_clash": lambda: fields(destination, {"a-b": TEXT}, {"a-b": TEXT, "A-B": TEXT}),
        "null_key": lambda: judged(
            destination,
            stream(fields=KEYS | {"id": {"type": "string"}}),
            stream(fields=KEYS),
        ),
    }
    assert found[missing]().verdict != "safe"


@given(names=st.lists(_NAMES, unique=True, max_size=5), rules=_KNOWN)
def test_tables_of_a_connection_differ(names: list[str], rules: Rules) -> None:
    """Each two streams with one table are judged."""
    destination = Destination(rules=rules, version=rules.since)
    made = tables(destination, [StreamId(None, name) for name in names], Naming())
    places = [table.place for table in made if table.twin is None]
    assert len(places) == len(set(places))
    assert set(judge_tables(destination, made)) == {t.stream for t in made if t.twin is not None}


def test_definitions_are_distinct() -> None:
    """BigQuery-denormalized differs from Databricks in one digit, and is no kind of its own."""
    dead = UUID("079d5540-f236-4294-ba7c-ade8fd918496")
    assert identify(dead, "airbyte/destination-bigquery-denormalized", "2.0.0").kind == UNKNOWN
