"""The queries a replicating client writes are read right, and everything else is refused."""
# ruff: noqa: S608 -- these are SOQL queries for the org's own parser

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.sample_org import soql
from local.sample_org.org import Org, SalesforceError
from local.sample_org.sample_rows import record_id, salesforce_time

BORN = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,30}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


@pytest.fixture(scope="module")
def org() -> Org:
    """A small org with its standard rows."""
    return Org(born=BORN)


def found(org: Org, text: str) -> soql.Result:
    """What queryAll would find."""
    return soql.run(soql.parse(text), org, deleted=True)


def refusal(text: str) -> str | None:
    """The code with which a text is refused, None where it can be read."""
    try:
        soql.parse(text)
    except SalesforceError as error:
        return error.code
    return None


def test_connector_query_of_an_incremental_slice() -> None:
    """As the connector writes it, offset and milliseconds included."""
    query = soql.parse(
        "SELECT Id, Name FROM Account WHERE SystemModstamp >= 2025-01-01T00:00:00.000+00:00"
        " AND SystemModstamp < 2025-01-31T02:30:00.500+02:00"
    )

    assert query.fields == ("Id", "Name")
    assert query.sobject == "Account"
    assert [(c.operator, c.literals[0].value) for c in query.conditions] == [
        (">=", "2025-01-01T00:00:00.000+0000"),
        ("<", "2025-01-31T00:30:00.500+0000"),
    ]


def test_adjacent_time_spans_hold_every_row_once(org: Org) -> None:
    """`>=` and `<` cut between rows, never through them."""
    middle = org.rows(org.find("Account"))[77]["SystemModstamp"]  # type: ignore[arg-type]

    before = found(org, f"SELECT Id FROM Account WHERE SystemModstamp < {middle}").rows
    after = found(org, f"SELECT Id FROM Account WHERE SystemModstamp >= {middle}").rows

    assert len(before) + len(after) == 200
    assert middle in {row["SystemModstamp"] for row in after}
    assert before
    assert all(row["SystemModstamp"] < middle for row in before)


def test_rows_are_sorted_and_limited(org: Org) -> None:
    """Empty values come first, as in Salesforce; LIMIT cuts after sorting."""
    rows = found(org, "SELECT Name FROM Opportunity ORDER BY Amount DESC, Id LIMIT 5").rows

    amounts = sorted((row["Amount"] for row in org.rows(org.find("Opportunity"))), reverse=True)  # type: ignore[arg-type]
    assert [row["Amount"] for row in rows] == amounts[:5]


@pytest.mark.parametrize(
    "condition, count",
    [
        ("Id = '0015f0000000001AAA'", 1),
        ("Id IN ('0015f0000000001AAA', '0015f0000000002AAA', 'nobody')", 2),
        ("Id NOT IN ('0015f0000000001AAA')", 199),
        ("Name = 'nobody''", None),
        ("ParentId = null", 200),
        ("ParentId != NULL", 0),
        ("ParentId < 'x'", 0),
        ("IsDeleted = false", 200),
        ("IsDeleted = TRUE AND AnnualRevenue > 5", 0),
        ("AnnualRevenue >= 0", 200),
        ("SLAExpirationDate__c < 2100-01-01", 200),
    ],
)
def test_conditions(org: Org, condition: str, count: int | None) -> None:
    """Comparisons, lists and null, over each kind of value."""
    text = f"SELECT Id FROM Account WHERE {condition}"
    if count is None:
        with pytest.raises(SalesforceError):
            found(org, text)
    else:
        assert len(found(org, text).rows) == count


def test_text_comparison_ignores_case(org: Org) -> None:
    """Names do; ids do not."""
    name = org.rows(org.find("Account"))[0]["Name"]  # type: ignore[arg-type]

    assert len(found(org, f"SELECT Id FROM Account WHERE Name = '{name.upper()}'").rows) == 1
    assert found(org, "SELECT Id FROM Account WHERE Id = '0015f0000000001aaa'").rows == []


@pytest.mark.parametrize(
    "text, code",
    [
        ("", "MALFORMED_QUERY"),
        ("SELECT", "MALFORMED_QUERY"),
        ("SELECT FROM Account", "MALFORMED_QUERY"),
        ("SELECT Id, FROM Account", "MALFORMED_QUERY"),
        ("SELECT Id Account", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE Id", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE Id = ", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE Id = Name", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE Id IN ()", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE Id = 'a' OR Id = 'b'", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account LIMIT -1", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account LIMIT 1.5", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account GROUP BY Id", "MALFORMED_QUERY"),
        ("SELECT Owner.Name FROM Account", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account; DROP", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE CreatedDate > 2025-13-01T00:00:00Z", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE CreatedDate > 0001-01-01T00:00:00+14:00", "MALFORMED_QUERY"),
        ("SELECT Id FROM Nothing__c", "INVALID_TYPE"),
        ("SELECT Id FROM account", "INVALID_TYPE"),
        ("SELECT Id, Nothing__c FROM Account", "INVALID_FIELD"),
        ("SELECT Id FROM Account WHERE Nothing__c = 1", "INVALID_FIELD"),
        ("SELECT Id FROM Account ORDER BY Nothing__c", "INVALID_FIELD"),
        ("SELECT Id FROM Account WHERE SystemModstamp > '2025-01-01T00:00:00Z'", "INVALID_FIELD"),
        ("SELECT Id FROM Account WHERE Name = 5", "INVALID_FIELD"),
        ("SELECT Id FROM Account WHERE BillingAddress = 'x'", "INVALID_FIELD"),
    ],
)
def test_unsupported_queries_are_refused(org: Org, text: str, code: str) -> None:
    """With Salesforce's error code."""
    with pytest.raises(SalesforceError) as refused:
        found(org, text)

    assert (refused.value.status, refused.value.code) == (400, code)


def test_missing_field_is_named_as_by_salesforce(org: Org) -> None:
    """The connector takes the field's name out of this sentence."""
    with pytest.raises(SalesforceError, match="No such column 'Gone__c' on entity 'Account'"):
        found(org, "SELECT Id, Gone__c FROM Account")


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    assert refusal(text) in {None, "MALFORMED_QUERY"}


@given(
    st.lists(
        st.sampled_from(
            [
                "SELECT",
                "FROM",
                "WHERE",
                "AND",
                "IN",
                "NOT",
                "ORDER",
                "BY",
                "LIMIT",
                "COUNT",
                "null",
                "Id",
                "Account",
                ",",
                "(",
                ")",
                "=",
                "<",
                "'x'",
                "5",
                "2025-01-01T00:00:00Z",
            ]
        ),
        max_size=16,
    )
)
def test_any_sequence_of_keywords_is_parsed_or_refused(words: list[str]) -> None:
    assert refusal(" ".join(words)) in {None, "MALFORMED_QUERY"}


@given(st.lists(NAMES, min_size=1, max_size=8), NAMES, st.sampled_from([",", ", ", " ,\n "]))
def test_field_names_round_trip(fields: list[str], sobject: str, comma: str) -> None:
    """However the list is spaced."""
    query = soql.parse(f"SELECT {comma.join(fields)} FROM {sobject}")

    assert (query.fields, query.sobject) == (tuple(fields), sobject)


@given(TEXTS)
def test_quoted_text_round_trips(value: str) -> None:
    """Quotes and backslashes are escaped with a backslash."""
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")

    query = soql.parse(f"SELECT Id FROM X WHERE Name = '{quoted}'")

    assert query.conditions[0].literals[0].value == value


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)),  # noqa: DTZ001 -- the zone is drawn apart
    st.integers(-14 * 60, 14 * 60),
)
def test_time_is_the_same_in_every_time_zone(naive: datetime, offset_minutes: int) -> None:
    """The connector writes `+00:00`, `Z` or another offset."""
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)))

    query = soql.parse(f"SELECT Id FROM X WHERE At >= {moment.isoformat(timespec='milliseconds')}")

    assert query.conditions[0].literals[0].value == salesforce_time(moment.astimezone(UTC))


def test_record_ids_have_salesforces_checksum() -> None:
    """18 characters, the last three telling upper from lower case: a published example."""
    assert record_id("001", 7) == "0015f0000000007AAA"
    assert record_id("00Q", 7).startswith("00Q5f0000000007")
    assert record_id("00Q", 7)[15] == "E"
