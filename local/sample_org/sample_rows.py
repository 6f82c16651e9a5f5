"""Generated row values, deterministic by object, field and row number on every machine.

Dates are relative to the org's creation date; all else depends on names and numbers only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from zlib import crc32

from local.sample_org.fields import Field, label_of

LARGEST = 10**15
"""Upper bound of generated numbers, so that every client represents them exactly."""

Row = dict[str, Any]
Reference = Callable[[str, int], str | None]
"""Maps an object and a number to the id of one of its rows; None if it has no rows."""

_FIRST = "Ada Ben Carla Dev Elif Femi Grace Hugo Ines Jon Kira Liam Mina Noor Omar Pia Quinn Rosa Sven Tara Uma Victor Wanda Yusuf Zoe".split()  # noqa: E501, SIM905 -- a list of names reads better in one line
_LAST = "Abebe Brandt Costa Diaz Eriksen Fischer Garcia Haddad Ivanov Jensen Khan Lopez Meyer Novak Okafor Patel Quist Rossi Silva Tanaka Ueda Vargas Weber Young Zhang".split()  # noqa: E501, SIM905
_FIRMS = "Acme Borealis Cobalt Delta Everest Fjord Granite Harbor Indigo Juniper Kestrel Lumen Meridian Nimbus Orchid Pioneer Quarry Redwood Summit Tundra".split()  # noqa: E501, SIM905
_TRADES = "Energy Foods Labs Logistics Media Motors Partners Systems Textiles Works".split()  # noqa: SIM905
_CITIES = [
    ("San Francisco", "CA", "94105", "United States", 37.79, -122.39),
    ("Austin", "TX", "78701", "United States", 30.27, -97.74),
    ("New York", "NY", "10001", "United States", 40.75, -73.99),
    ("London", "", "EC1A 1BB", "United Kingdom", 51.52, -0.1),
    ("Berlin", "BE", "10115", "Germany", 52.53, 13.38),
    ("Paris", "", "75001", "France", 48.86, 2.34),
    ("Nairobi", "", "00100", "Kenya", -1.29, 36.82),
    ("Osaka", "", "530-0001", "Japan", 34.7, 135.49),
]
_STREETS = ["Market Street", "High Street", "Lindenweg", "Rue Verte", "Harbour Road"]
_SUBJECTS = ["Call", "Send quote", "Follow up", "Prepare demo", "Renewal", "Check installation"]
_TITLES = ["CEO", "CFO", "VP Sales", "Buyer", "Director, Operations", "Engineer", "Analyst"]

_EMPTY_AT_FIRST = frozenset(
    {"MasterRecordId", "ParentId", "ReportsToId", "RecurrenceActivityId", "IndividualId"}
    | {"Jigsaw", "JigsawCompanyId", "JigsawContactId", "LastViewedDate", "LastReferencedDate"}
    | {"EmailBouncedReason", "EmailBouncedDate", "LastCURequestDate", "LastCUUpdateDate"}
    | {"ConvertedDate", "ConvertedAccountId", "ConvertedContactId", "ConvertedOpportunityId"}
    | {"ReminderDateTime", "CallType", "CallDisposition", "CallObject", "CallDurationInSeconds"}
    | {"ManagerId", "PhotoUrl"}
)


def salesforce_time(moment: datetime) -> str:
    """Format a UTC time as Salesforce does; the strings sort chronologically."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}+0000"


def record_id(key_prefix: str, number: int) -> str:
    """Build an 18-character record id: 15 characters, and three that encode their case."""
    short = f"{key_prefix}5f{number:010}"
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
    suffix = "".join(
        letters[sum(1 << i for i, char in enumerate(short[at : at + 5]) if char.isupper())]
        for at in (0, 5, 10)
    )
    return short + suffix


def row(
    sobject: str,
    fields: Mapping[str, Field],
    number: int,
    *,
    key_prefix: str,
    reference: Reference,
    born: datetime,
) -> Row:
    """Generate one row of an object."""
    made = {
        name: sample(field, f"{sobject}.{name}.{number}", reference=reference, born=born)
        for name, field in fields.items()
        if field.type != "address"
    }
    created = born - timedelta(days=20 + _dice(f"{sobject}.{number}") % 350, minutes=number)
    changed = created + timedelta(days=_dice(f"{number}.{sobject}") % 19, hours=1)
    made |= {
        "Id": record_id(key_prefix, number),
        "IsDeleted": False,
        "CreatedDate": salesforce_time(created),
        "LastModifiedDate": salesforce_time(changed),
        "SystemModstamp": salesforce_time(changed),
    }
    agreed = made | _agreement(sobject, made, number)
    for name, field in fields.items():
        if field.type == "address":
            agreed |= _address(name.removesuffix("Address"), number)
    return {name: agreed.get(name) for name in fields}


def sample(field: Field, seed: str, *, reference: Reference, born: datetime) -> Any:
    """Generate a value that fits the field."""
    if field.name in _EMPTY_AT_FIRST:
        return None
    dice = _dice(seed)
    if field.targets:
        return reference(field.targets[dice % len(field.targets)], dice >> 3)
    if field.type == "date":
        return (born - timedelta(days=dice % 300)).strftime("%Y-%m-%d")
    if field.type == "datetime":
        return salesforce_time(born - timedelta(minutes=dice % 400_000))
    return _BY_TYPE.get(field.type, _text)(field, dice)


def converted(value: Any, field: Field) -> Any:
    """Convert a value to a field's new type; None if it does not fit, as in Salesforce."""
    if value is None:
        return None
    match field.type:
        case "boolean":
            return str(value).lower() in {"true", "yes", "1"}
        case "int" | "double" | "currency" | "percent":
            return _as_number(value, whole=field.type == "int")
        case "date" | "datetime":
            return value if _is_time(value, field.type) else None
        case "reference":
            return None
        case _:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            return text[: field.length]


def _dice(seed: str) -> int:
    return crc32(seed.encode())


_BY_TYPE: Mapping[str, Callable[[Field, int], Any]] = {
    "boolean": lambda _field, dice: dice % 3 == 0,
    "int": lambda _field, dice: dice % 500,
    "double": lambda field, dice: _number(field, dice, 100),
    "percent": lambda field, dice: _number(field, dice, 100),
    "currency": lambda field, dice: _number(field, dice, 250_000),
    "picklist": lambda field, dice: field.values[dice % len(field.values)],
    "multipicklist": lambda field, dice: ";".join(field.values[: dice % 3 + 1]),
    "email": lambda _field, dice: f"{_FIRST[dice % 24]}.{_LAST[dice % 24]}@example.com".lower(),
    "phone": lambda _field, dice: f"+1 555 {dice % 900 + 100} {dice % 9000 + 1000}",
    "url": lambda field, dice: f"https://www.example.com/{field.name.lower()}/{dice % 10_000}",
}


def _number(field: Field, dice: int, largest: int) -> float:
    return float(dice % (min(largest, 10 ** (field.precision - field.scale) - 1) + 1))


def _as_number(value: Any, *, whole: bool) -> int | float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    if not abs(number) < LARGEST:
        return None
    return int(number) if whole else number


def _is_time(value: Any, kind: str) -> bool:
    try:
        datetime.fromisoformat(str(value))
    except ValueError:
        return False
    return ("T" in str(value)) == (kind == "datetime")


def _text(field: Field, dice: int) -> str:
    text = {
        "FirstName": _FIRST[dice % len(_FIRST)],
        "LastName": _LAST[dice % len(_LAST)],
        "Subject": _SUBJECTS[dice % len(_SUBJECTS)],
        "Title": _TITLES[dice % len(_TITLES)],
        "Company": _firm(dice),
    }.get(field.name, f"{field.label} {dice % 1000}")
    return text[: field.length or 255]


def _firm(dice: int) -> str:
    return f"{_FIRMS[dice % len(_FIRMS)]} {_TRADES[(dice >> 5) % len(_TRADES)]}"


def _address(prefix: str, number: int) -> Row:
    city, state, code, country, latitude, longitude = _CITIES[number % len(_CITIES)]
    parts = {
        "Street": f"{number % 90 + 1} {_STREETS[number % len(_STREETS)]}",
        "City": city,
        "State": state or None,
        "PostalCode": code,
        "Country": country,
        "Latitude": latitude,
        "Longitude": longitude,
        "GeocodeAccuracy": "City",
    }
    compound = {key[0].lower() + key[1:]: value for key, value in parts.items()}
    return {f"{prefix}{key}": value for key, value in parts.items()} | {
        f"{prefix}Address": compound
    }


def _agreement(sobject: str, made: Row, number: int) -> Row:
    """Return the fields of a row that must be consistent with each other."""
    if sobject in _AGREEMENTS:
        return _AGREEMENTS[sobject](made, number)
    return {"Name": f"{label_of(sobject)} {number:04}"}


def _account(_made: Row, number: int) -> Row:
    return {"Name": f"{_firm(_dice(str(number)))} {number:03}"}


def _case(made: Row, number: int) -> Row:
    closed = made["Status"] == "Closed"
    when = made["LastModifiedDate"] if closed else None
    return {"CaseNumber": f"{number:08}", "IsClosed": closed, "ClosedDate": when}


def _task(made: Row, _number: int) -> Row:
    closed = made["Status"] == "Completed"
    when = made["LastModifiedDate"] if closed else None
    return {"IsClosed": closed, "CompletedDateTime": when}


def _event(made: Row, _number: int) -> Row:
    starts = datetime.strptime(made["StartDateTime"], "%Y-%m-%dT%H:%M:%S.%f%z")
    minutes = 15 * (made["DurationInMinutes"] % 8 + 1)
    ends = starts + timedelta(minutes=minutes)
    return {
        "DurationInMinutes": minutes,
        "ActivityDateTime": made["StartDateTime"],
        "ActivityDate": made["StartDateTime"][:10],
        "EndDateTime": salesforce_time(ends),
        "EndDate": f"{ends:%Y-%m-%d}",
    }


def _line_item(made: Row, _number: int) -> Row:
    total = made["Quantity"] * made["UnitPrice"]
    return {"TotalPrice": total, "ListPrice": made["UnitPrice"]}


def _price_book(_made: Row, number: int) -> Row:
    name = "Standard Price Book" if number == 1 else f"Price Book {number}"
    return {"Name": name, "IsStandard": number == 1, "IsActive": True}


def _person(made: Row, number: int) -> Row:
    first, last = made["FirstName"], made["LastName"]
    email = f"{first}.{last}.{number}@example.com".lower()
    return {
        "Name": f"{first} {last}",
        "Email": email,
        "Username": email,
        "Alias": f"{first[:1]}{last[:4]}{number}".lower()[:8],
        "IsActive": True,
        "IsConverted": False,
    }


_STAGES: Mapping[str, tuple[int, str]] = {
    "Prospecting": (10, "Pipeline"),
    "Qualification": (10, "Pipeline"),
    "Proposal": (20, "Pipeline"),
    "Negotiation": (50, "Pipeline"),
    "Closed Won": (100, "Closed"),
    "Closed Lost": (0, "Omitted"),
}
_DEALS: Sequence[str] = ["Generators", "Installation", "Service Contract", "Spare Parts"]


def _deal(made: Row, number: int) -> Row:
    probability, forecast = _STAGES[made["StageName"]]
    closes = made["CloseDate"]
    return {
        "Name": f"{_firm(number * 7)} {_DEALS[number % len(_DEALS)]} {number:03}",
        "Probability": float(probability),
        "ExpectedRevenue": made["Amount"] * probability / 100,
        "IsClosed": made["StageName"].startswith("Closed"),
        "IsWon": made["StageName"] == "Closed Won",
        "ForecastCategory": forecast,
        "ForecastCategoryName": forecast,
        "FiscalYear": int(closes[:4]),
        "FiscalQuarter": (int(closes[5:7]) + 2) // 3,
        "Fiscal": f"{closes[:4]} {(int(closes[5:7]) + 2) // 3}",
    }


_AGREEMENTS: Mapping[str, Callable[[Row, int], Row]] = {
    "Account": _account,
    "Contact": _person,
    "Lead": _person,
    "User": _person,
    "Opportunity": _deal,
    "Case": _case,
    "Task": _task,
    "Event": _event,
    "OpportunityLineItem": _line_item,
    "Pricebook2": _price_book,
}
