"""What each kind of destination does with names, types and changes, by generation of connector.

Facts only. Versions in `Since` are the lowest ones with the value. `UNKNOWN` means that the fact
was not found, and is never treated as safe; a limit of None means that no limit was found.

Short paths in `sources` are of airbytehq/airbyte, at the commit after the `@`: CDK is
airbyte-cdk/bulk/core/load, `#n` an issue or pull request. "vendor" is the database's own manual.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec.structs import replace

UNKNOWN: Final = "unknown"

Compare: TypeAlias = Literal["exact", "nocase", "unknown"]
ColumnClash: TypeAlias = Literal["suffix_in_order", "sync_fails", "unknown"]
TableClash: TypeAlias = Literal["suffix_in_order", "unknown"]
SameTable: TypeAlias = Literal["sync_fails", "suffix_in_order", "rows_mixed", "unknown"]
Cut: TypeAlias = Literal["none", "hash", "hash_hex", "plain", "middle", "unknown"]
Limit: TypeAlias = int | Literal["unknown"] | None
GROUPS: Final = ("names", "clashes", "limits", "types", "removed", "keys")
"""What `sources` names a source for."""


class Since(msgspec.Struct, frozen=True):
    """Values of a fact by the lowest version that has them, oldest first."""

    values: tuple[tuple[str, str], ...]


def _always(value: str) -> Since:
    return Since((("0.0.0", value),))


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What one generation of a kind of destination does; the defaults are of an unknown one."""

    kind: str = UNKNOWN
    title: str = "The destination"
    generation: Literal["direct-load", "typing-deduping", "normalization", "unknown"] = "unknown"
    since: str = "0.0.0"
    """The first version of this generation."""
    until: str | None = None
    """The first version that is no longer of this generation; None for the newest."""
    steps: tuple[str, ...] = ("std", "lower")
    """How the name of a column is made of a field's; see `_names.STEPS`."""
    table_steps: tuple[str, ...] | None = None
    """The same for tables and schemas; None if as for columns."""
    schema_steps: tuple[str, ...] | None = None
    """The same for schemas; None if as for tables."""
    has_namespaces: bool = True
    """Whether it writes to other schemas than the one of its configuration."""
    compare: Compare = UNKNOWN
    """How the connector compares the names of columns."""
    table_compare: Compare = "exact"
    engine_compare: Compare | None = None
    """How the database compares them; None if as the connector does."""
    column_length: Limit = UNKNOWN
    """In characters."""
    table_length: Limit = UNKNOWN
    cut: Cut = UNKNOWN
    """What it does with a longer name; `none` if the database refuses it."""
    max_columns: Limit = UNKNOWN
    """Including four columns of Airbyte's own."""
    reserved: tuple[str, ...] = (
        "_airbyte_raw_id",
        "_airbyte_extracted_at",
        "_airbyte_meta",
        "_airbyte_generation_id",
        "_airbyte_loaded_at",
        "_airbyte_data",
        "_airbyte_ab_id",
        "_airbyte_emitted_at",
    )
    reserved_verdict: Literal["ask", "refuse"] = "ask"
    reserved_more: tuple[str, ...] = ()
    """Names that the database refuses."""
    reserved_prefixes: tuple[str, ...] = ()
    """Beginnings of names that the database refuses, in lower case."""
    bad_characters: str = ""
    """Characters that break its statements."""
    doubts_mixed_case: bool = False
    """Whether it may write NULL into the column of a field whose name is not in lower case."""
    column_clash: ColumnClash = UNKNOWN
    table_clash: TableClash = UNKNOWN
    same_table: SameTable = UNKNOWN
    """What happens to two streams with the same namespace and name in the destination."""
    removed: Since = _always(UNKNOWN)
    """`keep`, `drop` or `rebuild` (the final table is made again from the raw one)."""
    retype: str = UNKNOWN
    """`alter`, `copy`, `rewrite`, `rebuild`, `refuse` or `ignored`."""
    types: Mapping[str, str] = {}
    """The type of the column, by type of the field; see `_types.field_type`."""
    safe_types: frozenset[str] = frozenset()
    """Changes of a field's type, `before>after`, that lose nothing."""
    null_key: Since = _always(UNKNOWN)
    """`matched`, `duplicates` or `sync_fails`."""
    null_cursor: Since = _always("loses")
    """`loses` against any other row, or `sync_fails`."""
    doubtful_keys: frozenset[str] = frozenset()
    """Types of fields whose columns compare other values as equal than the source."""
    sources: Mapping[str, str] = {}


DELETES_ROWS: Final = "_ab_cdc_deleted_at"
"""In deduplicated tables, rows in which it is set are deleted.

Source: RedshiftSqlGenerator@daf09114; Postgres@1eca9b94, Snowflake, BigQuery and Databricks too,
unless they are configured to keep deleted rows.
"""
AMBIGUOUS_IN_DEDUP: Final = "row_number"
"""The query that deduplicates has a column of this name. Source: the same generators, inferred."""
META_COLUMNS: Final = 4

DEFINITIONS: Final[Mapping[UUID, str]] = {
    UUID("25c5221d-dce2-4163-ade9-739ef790f503"): "postgres",
    UUID("424892c4-daac-4491-b35d-c6688ba547ba"): "snowflake",
    UUID("22f6c74f-5699-40ff-833c-4a879ea40133"): "bigquery",
    UUID("f7a7d195-377f-cf5b-70a5-be6b819019dc"): "redshift",
    UUID("072d5540-f236-4294-ba7c-ade8fd918496"): "databricks",
    UUID("ce0d828e-1dc4-496c-b122-2da42e637e48"): "clickhouse",
    UUID("d4353156-9217-4cad-8dd7-c108fd4f74cf"): "mssql",
    UUID("ca81ee7c-3163-4246-af40-094cc31e5e42"): "mysql",
    UUID("716ca874-520b-4902-9f80-9fad66754b89"): "s3-data-lake",
    UUID("94bd199c-2ff0-4aa2-b98e-17f0acb72610"): "duckdb",
    UUID("042ee9b5-eb98-4e99-a4e5-3f0d573bee66"): "motherduck",
}
"""Source: airbyte-platform 310e6cb6, NameToDefinitionMapper.kt; MotherDuck metadata@01388fbf."""

REPOSITORY: Final = "destination-"
STRICT: Final = "-strict-encrypt"
"""The suffix of an older alias of some connectors on Airbyte Cloud."""

DEFAULT_SCHEMA: Final[Mapping[str, str]] = {
    "postgres": "schema",
    "snowflake": "schema",
    "bigquery": "dataset_id",
    "redshift": "schema",
    "databricks": "schema",
    "clickhouse": "database",
    "mssql": "schema",
    "mysql": "database",
    "duckdb": "schema",
    "motherduck": "schema",
}
"""The member of the configuration that names where a stream without namespace goes."""
_JSON_TYPES = ("object", "array", "union", UNKNOWN)


_EVOLVE = "CDK TableSchemaEvolutionClient@0abd8b0e"
_RESOLVER = (
    "CDK ColumnNameResolver@9605e5cf, TableNameResolver@9089d14d, DestinationCatalog@00261a2b"
)

_POSTGRES = Rules(
    kind="postgres",
    title="Postgres",
    generation="direct-load",
    since="3.0.0",
    steps=("std", "digit"),
    compare="nocase",
    column_length=63,
    table_length=63,
    cut="hash",
    max_columns=1600,
    reserved_more=("ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"),
    column_clash="suffix_in_order",
    table_clash="suffix_in_order",
    same_table="sync_fails",
    removed=Since((("3.0.0", "drop"), ("3.0.14", "keep"))),
    retype="alter",
    types={
        "string": "varchar",
        "boolean": "boolean",
        "integer": "bigint",
        "number": "decimal",
        "date": "date",
        "time_tz": "timetz",
        "time": "time",
        "timestamp_tz": "timestamptz",
        "timestamp": "timestamp",
        **dict.fromkeys(_JSON_TYPES, "jsonb"),
    },
    safe_types=frozenset(
        {
            "integer>number",
            "boolean>string",
            "integer>string",
            "number>string",
            "date>string",
            "object>string",
            "array>string",
        }
    ),
    null_key=_always("duplicates"),
    sources={
        "names": "PostgresNamingUtils@2f137750",
        "clashes": _RESOLVER,
        "limits": "PostgresNamingUtils@2f137750; vendor: PostgreSQL, Limits and System Columns",
        "types": "PostgresTableSchemaMapper@1db99e2e",
        "removed": "#82273",
        "keys": f"{_EVOLVE}; Postgres direct-load generator@1eca9b94",
    },
)
_SNOWFLAKE = Rules(
    kind="snowflake",
    title="Snowflake",
    generation="direct-load",
    since="4.0.0",
    steps=("braces", "upper"),
    compare="nocase",
    column_length=255,
    table_length=255,
    cut="none",
    max_columns=None,
    reserved_more=(
        "LOCALTIME",
        "LOCALTIMESTAMP",
        "CURRENT_DATE",
        "CURRENT_TIME",
        "CURRENT_TIMESTAMP",
        "CURRENT_USER",
    ),
    column_clash="suffix_in_order",
    table_clash="suffix_in_order",
    same_table="sync_fails",
    removed=Since((("4.0.0", "drop"), ("4.0.47", "keep"))),
    retype="copy",
    types={
        "string": "VARCHAR",
        "boolean": "BOOLEAN",
        "integer": "NUMBER",
        "number": "FLOAT",
        "date": "DATE",
        "time_tz": "VARCHAR",
        "time": "TIME",
        "timestamp_tz": "TIMESTAMP_TZ",
        "timestamp": "TIMESTAMP_NTZ",
        "object": "OBJECT",
        "array": "ARRAY",
        "union": "VARIANT",
        UNKNOWN: "VARIANT",
    },
    safe_types=frozenset(
        {"boolean>string", "integer>string", "date>string", "object>string", "array>string"}
    ),
    null_key=_always("sync_fails"),
    doubtful_keys=frozenset({"number", "time_tz"}),
    sources={
        "names": "SnowflakeNamingUtils@3c8dad69",
        "clashes": _RESOLVER,
        "limits": "#76262; vendor: Snowflake, Identifier requirements",
        "types": "SnowflakeTableSchemaMapper@1c9df7e7, SnowflakeValueCoercer@09a4df23",
        "removed": "#54719, #82272",
        "keys": "SnowflakeDirectLoadSqlGenerator@03fd2568",
    },
)
_BIGQUERY = Rules(
    kind="bigquery",
    title="BigQuery",
    generation="direct-load",
    since="3.0.0",
    steps=("std", "letter"),
    schema_steps=("std", "dataset"),
    compare="nocase",
    column_length=300,
    table_length=1024,
    cut="none",
    max_columns=10_000,
    reserved_prefixes=(
        "_table_",
        "_file_",
        "_partition",
        "_row_timestamp",
        "__root__",
        "_colidentifier",
    ),
    column_clash="suffix_in_order",
    table_clash="suffix_in_order",
    same_table="sync_fails",
    removed=Since((("3.0.0", "drop"),)),
    retype="copy",
    types={
        "string": "STRING",
        "boolean": "BOOL",
        "integer": "INT64",
        "number": "NUMERIC",
        "date": "DATE",
        "time_tz": "STRING",
        "time": "TIME",
        "timestamp_tz": "TIMESTAMP",
        "timestamp": "DATETIME",
        "object": "JSON",
        "array": "JSON",
        UNKNOWN: "JSON",
    },
    safe_types=frozenset(
        {"integer>number", "boolean>string", "integer>string", "number>string", "date>string"}
    ),
    null_key=Since((("3.0.0", "matched"), ("3.0.21", "duplicates"), ("3.0.22", "matched"))),
    doubtful_keys=frozenset({"time_tz"}),
    sources={
        "names": "BigQuerySQLNameTransformer@c07aad42",
        "clashes": _RESOLVER,
        "limits": "vendor: BigQuery, Schemas and Quotas",
        "types": "BigqueryDirectLoadSqlGenerator@01f94024",
        "removed": "BigQuery connector @03f93b93; no later change found",
        "keys": "#81346, #81634, #81635; BigqueryDirectLoadSqlGenerator@01f94024",
    },
)
_REDSHIFT = Rules(
    kind="redshift",
    title="Redshift",
    generation="direct-load",
    since="4.0.0",
    steps=("std", "digit", "lower"),
    compare="nocase",
    column_length=127,
    table_length=127,
    cut="hash_hex",
    max_columns=1600,
    column_clash="suffix_in_order",
    table_clash="suffix_in_order",
    same_table="sync_fails",
    removed=Since((("4.0.0", "drop"), ("4.0.5", "keep"))),
    retype="copy",
    types={
        "string": "varchar",
        "boolean": "boolean",
        "integer": "bigint",
        "number": "decimal",
        "date": "date",
        "time_tz": "timetz",
        "time": "time",
        "timestamp_tz": "timestamptz",
        "timestamp": "timestamp",
        "object": "super",
        "array": "super",
        "union": "varchar",
        UNKNOWN: "varchar",
    },
    safe_types=frozenset({"integer>number", "integer>string", "number>string", "date>string"}),
    null_key=_always("duplicates"),
    sources={
        "names": "RedshiftNamingUtils@aafaccd4",
        "clashes": _RESOLVER,
        "limits": "RedshiftNamingUtils@aafaccd4; vendor: Redshift, Quotas and limits",
        "types": "Redshift schema mapper@abe37b30, RedshiftValueCoercer@6cd5800a",
        "removed": "#82274; the changelog gives 4.0.4 to another fix, so 4.0.5 counts",
        "keys": "RedshiftSqlGenerator@daf09114",
    },
)
_DATABRICKS = Rules(
    kind="databricks",
    title="Databricks",
    generation="direct-load",
    since="4.0.0",
    steps=("std", "digit"),
    table_steps=("std", "digit", "lower"),
    compare="exact",
    engine_compare="nocase",
    column_length=255,
    table_length=255,
    cut="hash",
    max_columns=None,
    column_clash="suffix_in_order",
    table_clash="suffix_in_order",
    same_table="sync_fails",
    removed=Since((("4.0.0", "drop"), ("4.0.1", "keep"))),
    retype="rewrite",
    types={
        "string": "STRING",
        "boolean": "BOOLEAN",
        "integer": "LONG",
        "number": "DECIMAL",
        "date": "DATE",
        "time_tz": "STRING",
        "time": "STRING",
        "timestamp_tz": "TIMESTAMP",
        "timestamp": "TIMESTAMP_NTZ",
        **dict.fromkeys(_JSON_TYPES, "STRING"),
    },
    safe_types=frozenset(
        {"integer>number", "boolean>string", "integer>string", "number>string", "date>string"}
    ),
    null_key=_always("duplicates"),
    sources={
        "names": "DatabricksNamingUtils@3b72bdca",
        "clashes": "DatabricksTableSchemaMapper@1bd4de6b; delta-io/delta#126",
        "limits": "DatabricksNamingUtils@3b72bdca; no limit of columns found",
        "types": "DatabricksTableSchemaMapper@1bd4de6b",
        "removed": "#82275",
        "keys": "Databricks SQL generator, read with the schema mapper",
    },
)
_CLICKHOUSE = Rules(
    kind="clickhouse",
    title="ClickHouse",
    generation="direct-load",
    since="2.0.0",
    steps=("std", "digit"),
    compare="nocase",
    column_length=None,
    table_length=None,
    cut="none",
    max_columns=None,
    column_clash="suffix_in_order",
    table_clash="suffix_in_order",
    same_table="sync_fails",
    removed=Since((("2.0.0", "drop"),)),
    retype="alter",
    types={
        "string": "String",
        "boolean": "Bool",
        "integer": "Int64",
        "number": "Decimal",
        "date": "Date32",
        "time_tz": "String",
        "time": "String",
        "timestamp_tz": "DateTime64",
        "timestamp": "DateTime64",
        "array": "String",
        "union": "String",
        UNKNOWN: "String",
    },
    safe_types=frozenset({"integer>number"}),
    null_key=_always("sync_fails"),
    null_cursor=_always("sync_fails"),
    sources={
        "names": "ClickhouseNamingUtils@e47a1f6a",
        "clashes": _RESOLVER,
        "limits": "no limit found in ClickhouseNamingUtils@e47a1f6a or the manual",
        "types": "ClickHouse schema mapper@3e787c61; an object is JSON or String, by option",
        "removed": "#83747; #82276 was closed",
        "keys": "#65915, #76476",
    },
)
_MSSQL = Rules(
    kind="mssql",
    title="MSSQL",
    generation="direct-load",
    since="2.0.0",
    steps=(),
    compare="nocase",
    table_compare="nocase",
    column_length=128,
    table_length=128,
    cut="none",
    max_columns=1024,
    bad_characters="]",
    column_clash="sync_fails",
    same_table="sync_fails",
    removed=Since((("2.0.0", "drop"),)),
    retype="alter",
    types={
        "string": "NVARCHAR",
        "boolean": "BIT",
        "integer": "BIGINT",
        "number": "DECIMAL",
        "date": "DATE",
        "time_tz": "DATETIMEOFFSET",
        "time": "TIME",
        "timestamp_tz": "DATETIMEOFFSET",
        "timestamp": "DATETIME",
        **dict.fromkeys(_JSON_TYPES, "TEXT"),
    },
    null_key=_always("duplicates"),
    sources={
        "names": "MSSQLQueryBuilder@27d7d20e, of 2.0 and 2.1",
        "clashes": "MSSQLQueryBuilder@27d7d20e has no resolution; DestinationCatalog@00261a2b",
        "limits": "vendor: SQL Server, Maximum capacity specifications",
        "types": "AirbyteTypeToMssqlType@267e7c5c",
        "removed": "MSSQLQueryBuilder@27d7d20e",
        "keys": "MSSQLQueryBuilder@27d7d20e",
    },
)
_MYSQL = Rules(
    kind="mysql",
    title="MySQL",
    generation="typing-deduping",
    since="1.0.0",
    steps=("std", "lower"),
    compare="nocase",
    column_length=44,
    table_length=44,
    cut="middle",
    max_columns=1017,
    reserved_verdict="refuse",
    column_clash="suffix_in_order",
    table_clash="suffix_in_order",
    same_table="suffix_in_order",
    removed=Since((("1.0.0", "rebuild"),)),
    retype="rebuild",
    types={
        "string": "TEXT",
        "time_tz": "VARCHAR",
        "timestamp_tz": "VARCHAR",
    },
    sources={
        "names": "MySQLNameTransformer@5964d630",
        "clashes": "CatalogParser@0173f12b",
        "limits": "MySQLNameTransformer@5964d630 (64-12-8); vendor: InnoDB limits",
        "types": "MysqlSqlGenerator@2da629a5",
        "removed": "docs typing-deduping@536762a7",
        "keys": "CatalogParser@0173f12b: #28557, #30250",
    },
)
_ICEBERG = Rules(
    kind="s3-data-lake",
    title="S3 Data Lake",
    generation="direct-load",
    since="0.3.9",
    steps=(),
    compare="nocase",
    column_length=None,
    table_length=None,
    cut="none",
    max_columns=None,
    column_clash="suffix_in_order",
    same_table="sync_fails",
    removed=Since((("0.3.9", "drop"),)),
    retype="refuse",
    types={
        "string": "string",
        "boolean": "boolean",
        "integer": "long",
        "number": "double",
        "date": "date",
        "time_tz": "time",
        "time": "time",
        "timestamp_tz": "timestamptz",
        "timestamp": "timestamp",
        **dict.fromkeys(_JSON_TYPES, "string"),
    },
    null_key=_always("sync_fails"),
    doubtful_keys=frozenset({"number"}),
    sources={
        "names": "S3DataLakeTableSchemaMapper@15be0371, without the option that normalises columns",
        "clashes": _RESOLVER,
        "limits": "no limit found",
        "types": "AirbyteTypeToIcebergSchema@00f194f9, SuperTypeFinder@1b699571",
        "removed": "docs s3-data-lake: old snapshots of the table have the column",
        "keys": "docs s3-data-lake, changelog 0.3.5",
    },
)
_MOTHERDUCK = Rules(
    kind="motherduck",
    title="MotherDuck",
    generation="direct-load",
    since="0.1.0",
    steps=("lower",),
    has_namespaces=False,
    compare="nocase",
    column_length=None,
    table_length=None,
    cut="none",
    max_columns=None,
    doubts_mixed_case=True,
    same_table="rows_mixed",
    removed=Since((("0.1.0", "keep"),)),
    retype="ignored",
    sources={
        "names": "motherduck destination.py@02e7b70b; #72410 (#70438 fixes it)",
        "clashes": "motherduck destination.py@02e7b70b",
        "limits": "no limit found",
        "types": "motherduck processors/duckdb.py@05fe4e49: types of columns are never changed",
        "removed": "motherduck processors/duckdb.py@05fe4e49",
        "keys": "not found",
    },
)

_TD_SAFE = frozenset(
    {"integer>number", "boolean>string", "integer>string", "number>string", "date>string"}
)


def _typing_deduping(newest: Rules, since: str) -> Rules:
    """The generation before direct-load, which names columns much as the newest does."""
    is_float = newest.kind == "snowflake"
    return replace(
        newest,
        generation="typing-deduping",
        since=since,
        until=newest.since,
        cut="plain" if newest.kind == "postgres" else newest.cut,
        reserved_verdict="refuse",
        same_table="suffix_in_order",
        removed=_always("rebuild"),
        retype="rebuild",
        safe_types=_TD_SAFE - {"integer>number", "number>string"} if is_float else _TD_SAFE,
        null_key=_always("duplicates"),
        sources={
            "names": f"{newest.sources['names']}; not each read again for this generation",
            "clashes": "CatalogParser@0173f12b; #42845, #35764 about raw tables",
            "limits": newest.sources["limits"],
            "types": "JdbcSqlGenerator@00cd4ce5",
            "removed": "docs typing-deduping@536762a7",
            "keys": "CatalogParser@0173f12b: #28557, #30250",
        },
    )


def _normalization(newest: Rules, until: str, length: int) -> Rules:
    """The generation of dbt projects; its rules for clashes were not found."""
    fold = {"snowflake": "upper", "bigquery": ""}.get(newest.kind, "lower")
    return Rules(
        kind=newest.kind,
        title=newest.title,
        generation="normalization",
        until=until,
        steps=("std", fold) if fold else ("std",),
        compare="nocase",
        column_length=length,
        table_length=length,
        cut="middle",
        max_columns=newest.max_columns,
        sources=dict.fromkeys(
            GROUPS, "base-normalization destination_name_transformer@0136859a; the rest not found"
        ),
    )


RULES: Final[tuple[Rules, ...]] = (
    _POSTGRES,
    _typing_deduping(_POSTGRES, "2.0.0"),
    _normalization(_POSTGRES, "2.0.0", 43),
    _SNOWFLAKE,
    _typing_deduping(_SNOWFLAKE, "3.0.0"),
    _normalization(_SNOWFLAKE, "3.0.0", 235),
    _BIGQUERY,
    _typing_deduping(_BIGQUERY, "2.0.0"),
    _normalization(_BIGQUERY, "2.0.0", 1004),
    _REDSHIFT,
    _typing_deduping(_REDSHIFT, "2.0.0"),
    _normalization(_REDSHIFT, "2.0.0", 107),
    _DATABRICKS,
    _typing_deduping(_DATABRICKS, "3.0.0"),
    _CLICKHOUSE,
    _MSSQL,
    _MYSQL,
    _ICEBERG,
    _MOTHERDUCK,
    replace(_MOTHERDUCK, kind="duckdb", title="DuckDB", since="0.1.0"),
)
"""A kind and version that none of these covers has the rules of an unknown destination."""
