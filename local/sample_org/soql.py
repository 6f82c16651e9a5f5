"""The part of SOQL that a replicating client uses; any other query is rejected.

`SELECT fields FROM Object [WHERE a AND b …] [ORDER BY f [ASC|DESC], …] [LIMIT n]`, where a
condition compares a field with a literal or with a list (`IN`). `COUNT()` may replace the fields.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from local.sample_org.fields import NUMBERS, Field
from local.sample_org.org import Org, SalesforceError, SObject
from local.sample_org.sample_rows import Row, salesforce_time

COUNT = "COUNT()"

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<datetime>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d))
      | (?P<date>\d{4}-\d\d-\d\d)
      | (?P<number>[+-]?\d+(?:\.\d+)?)
      | (?P<string>'(?:[^'\\]|\\.)*')
      | (?P<word>[A-Za-z_]\w*)
      | (?P<mark><=|>=|!=|<>|[=<>(),])
    )""",
    re.VERBOSE | re.DOTALL,
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_QUOTED = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True)
class Literal:
    """A literal value in a query."""

    kind: str
    """null, boolean, number, string, date or datetime."""
    value: Any


@dataclass(frozen=True)
class Condition:
    """One comparison; `IN` and `NOT IN` have any number of literals, the others one."""

    field: str
    operator: str
    literals: tuple[Literal, ...]


@dataclass(frozen=True)
class Query:
    """A parsed query; whether its object and fields exist is checked when it runs."""

    text: str
    fields: tuple[str, ...]
    sobject: str
    conditions: tuple[Condition, ...] = ()
    order: tuple[tuple[str, bool], ...] = ()
    """Fields to sort by, and whether the order is descending."""
    limit: int | None = None


@dataclass(frozen=True)
class Result:
    """The rows a query found, as of its run."""

    query: Query
    sobject: SObject
    rows: list[Row]


def parse(text: str) -> Query:
    """Parse a query.

    Raises:
        SalesforceError: MALFORMED_QUERY, with the position.
    """
    return _Parser(text).query()


def run(query: Query, org: Org, *, deleted: bool) -> Result:
    """Find the rows of a query; `deleted` includes the recycle bin, as queryAll does.

    Raises:
        SalesforceError: INVALID_TYPE or INVALID_FIELD for an unknown object or field.
    """
    sobject = org.find_visible(query.sobject)
    if sobject is None:
        raise SalesforceError(
            400,
            "INVALID_TYPE",
            f"{_place(query, query.sobject)}sObject type '{query.sobject}' is not supported. "
            "If you are attempting to use a custom object, be sure to append the '__c' after the "
            "entity name. Please reference your WSDL or the describe call for the appropriate "
            "names.",
        )
    if query.fields != (COUNT,):
        for name in query.fields:
            _field(query, sobject, name)
    tests = [
        _test(condition, _field(query, sobject, condition.field)) for condition in query.conditions
    ]
    rows = [
        row
        for row in org.rows(sobject)
        if (deleted or not row["IsDeleted"]) and all(test(row) for test in tests)
    ]
    for name, descending in reversed(query.order):
        kind = _field(query, sobject, name).type
        rows.sort(key=_sort_key(name, kind), reverse=descending)
    return Result(query, sobject, rows[: query.limit])


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._at = 0

    def query(self) -> Query:
        self._keyword("SELECT")
        fields = self._select_list()
        self._keyword("FROM")
        sobject = self._name()
        conditions: list[Condition] = []
        if self._accept("WHERE"):
            conditions.append(self._condition())
            while self._accept("AND"):
                conditions.append(self._condition())
        order: list[tuple[str, bool]] = []
        if self._accept("ORDER"):
            self._keyword("BY")
            order.append(self._direction())
            while self._accept(","):
                order.append(self._direction())
        limit = self._whole_number() if self._accept("LIMIT") else None
        if self._at < len(self._tokens):
            raise self._unexpected()
        return Query(self._text, fields, sobject, tuple(conditions), tuple(order), limit)

    def _select_list(self) -> tuple[str, ...]:
        first = self._name()
        if first.upper() == "COUNT" and self._accept("("):
            self._keyword(")")
            return (COUNT,)
        names = [first]
        while self._accept(","):
            names.append(self._name())
        return tuple(names)

    def _condition(self) -> Condition:
        field = self._name()
        if self._accept("NOT"):
            self._keyword("IN")
            return Condition(field, "NOT IN", self._list())
        if self._accept("IN"):
            return Condition(field, "IN", self._list())
        kind, sign = self._next()
        if kind != "mark" or sign not in _COMPARE:
            self._at -= 1
            raise self._unexpected()
        return Condition(field, sign, (self._literal(),))

    def _list(self) -> tuple[Literal, ...]:
        self._keyword("(")
        literals = [self._literal()]
        while self._accept(","):
            literals.append(self._literal())
        self._keyword(")")
        return tuple(literals)

    def _literal(self) -> Literal:
        kind, text = self._next()
        match kind:
            case "string":
                plain = re.sub(r"\\(.)", lambda m: _QUOTED.get(m[1], m[1]), text[1:-1], flags=re.S)
                return Literal("string", plain)
            case "number":
                return Literal("number", float(text))
            case "date" | "datetime":
                return Literal(kind, self._time(kind, text))
            case "word" if text.upper() == "NULL":
                return Literal("null", None)
            case "word" if text.upper() in {"TRUE", "FALSE"}:
                return Literal("boolean", text.upper() == "TRUE")
        self._at -= 1
        raise self._unexpected()

    def _time(self, kind: str, text: str) -> str:
        try:
            moment = datetime.fromisoformat(text)
            return text if kind == "date" else salesforce_time(moment.astimezone(UTC))
        except (ValueError, OverflowError) as error:
            raise _malformed(f"invalid {kind}: {text}") from error

    def _direction(self) -> tuple[str, bool]:
        name = self._name()
        if self._accept("DESC"):
            return name, True
        self._accept("ASC")
        return name, False

    def _whole_number(self) -> int:
        kind, text = self._next()
        if kind != "number" or not text.isascii() or not text.isdigit():
            self._at -= 1
            raise self._unexpected()
        return int(text[:9])

    def _name(self) -> str:
        kind, text = self._next()
        if kind != "word":
            self._at -= 1
            raise self._unexpected()
        return text

    def _keyword(self, word: str) -> None:
        if not self._accept(word):
            raise self._unexpected()

    def _accept(self, word: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at][1].upper() == word:
            self._at += 1
            return True
        return False

    def _next(self) -> tuple[str, str]:
        if self._at == len(self._tokens):
            self._at += 1
            return "end", ""
        self._at += 1
        return self._tokens[self._at - 1]

    def _unexpected(self) -> SalesforceError:
        if self._at >= len(self._tokens):
            return _malformed("unexpected token: '<EOF>'")
        return _malformed(f"unexpected token: '{self._tokens[self._at][1]}'")


def _tokens(text: str) -> Iterable[tuple[str, str]]:
    end = len(text.rstrip())
    at = 0
    while at < end:
        found = _TOKEN.match(text, at, end)
        if found is None or found.lastgroup is None:
            raise _malformed(f"unexpected character at column {at + 1}")
        yield found.lastgroup, found[found.lastgroup]
        at = found.end()


def _malformed(why: str) -> SalesforceError:
    return SalesforceError(400, "MALFORMED_QUERY", why)


def _field(query: Query, sobject: SObject, name: str) -> Field:
    field = sobject.fields.get(name)
    if field is None or not field.queryable:
        raise SalesforceError(
            400,
            "INVALID_FIELD",
            f"{_place(query, name)}No such column '{name}' on entity '{sobject.name}'. If you are "
            "attempting to use a custom field, be sure to append the '__c' after the custom field "
            "name. Please reference your WSDL or the describe call for the appropriate names.",
        )
    return field


def _place(query: Query, word: str) -> str:
    found = re.search(rf"\b{re.escape(word)}\b", query.text)
    column = found.start() + 1 if found else 1
    before, after = max(0, column - 40), column + 40
    return f"\n{query.text[before:after]}\n^\nERROR at Row:1:Column:{column}\n"


def _test(condition: Condition, field: Field) -> Callable[[Row], bool]:
    if field.type == "address":
        raise SalesforceError(
            400, "INVALID_FIELD", f"field '{field.name}' can not be filtered in a query call"
        )
    for literal in condition.literals:
        _check_kind(field, literal)
    fold = _fold(field.type)
    name = field.name
    if condition.operator in {"IN", "NOT IN"}:
        wanted = {fold(literal.value) for literal in condition.literals}
        inside = condition.operator == "IN"
        return lambda row: (fold(row.get(name)) in wanted) == inside
    compare = _COMPARE[condition.operator]
    value = fold(condition.literals[0].value)
    if condition.operator in {"=", "!=", "<>"}:
        return lambda row: compare(fold(row.get(name)), value)
    if value is None:
        return lambda _row: False
    return lambda row: row.get(name) is not None and compare(fold(row[name]), value)


def _check_kind(field: Field, literal: Literal) -> None:
    kind = _kind(field.type)
    if literal.kind not in {kind, "null"}:
        quotes = "should be" if kind == "string" else "should not be"
        raise SalesforceError(
            400,
            "INVALID_FIELD",
            f"value of filter criterion for field '{field.name}' must be of type "
            f"{kind} and {quotes} enclosed in quotes",
        )


def _kind(field_type: str) -> str:
    if field_type in NUMBERS:
        return "number"
    return field_type if field_type in {"boolean", "date", "datetime"} else "string"


def _fold(field_type: str) -> Callable[[Any], Any]:
    """Return a key for comparisons; as in Salesforce, only ids are case-sensitive."""
    if _kind(field_type) != "string" or field_type in {"id", "reference"}:
        return lambda value: value
    return lambda value: value.casefold() if isinstance(value, str) else value


def _sort_key(name: str, field_type: str) -> Callable[[Row], tuple[Any, ...]]:
    fold = _fold(field_type)
    return lambda row: (False,) if row.get(name) is None else (True, fold(row[name]))
