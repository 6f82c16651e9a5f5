"""The content of the org: objects, their fields, their rows. No clock, no disk, no network.

Names are case-sensitive, unlike in Salesforce.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from local.sample_org.fields import CustomType, Field, custom_field, described, label_of
from local.sample_org.sample_rows import Row, record_id, row, salesforce_time, sample
from local.sample_org.standard_objects import STANDARD_OBJECTS, SYSTEM_FIELDS, parse_fields

SYSTEM = parse_fields(SYSTEM_FIELDS)
_ROWS_OF_A_GENERATED_OBJECT = 3
_ALLOWED = (
    *("createable", "deletable", "layoutable", "mergeable", "queryable", "replicateable"),
    *("retrieveable", "searchable", "triggerable", "undeletable", "updateable"),
)
_FORBIDDEN = (
    *("activateable", "customSetting", "deepCloneable", "deprecatedAndHidden", "feedEnabled"),
    *("hasSubtypes", "isInterface", "isSubtype"),
)
_GENERATED = re.compile(r"Custom_(\d{4})__c")


class SalesforceError(Exception):
    """An error as Salesforce reports it: a status, an error code, a message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass
class SObject:
    """One object of the org. Its rows are generated on first use."""

    name: str
    label: str
    label_plural: str
    key_prefix: str
    fields: dict[str, Field]
    count: int
    """Number of rows, fixed at creation: no change adds or deletes one."""
    repeated: int = 1
    """How often the same values are repeated with new ids; `count` includes the repetitions."""
    hidden: bool = False
    removed: dict[str, Field] = field(default_factory=dict)
    """Hidden standard fields; their values stay in the rows."""
    _rows: list[Row] | None = None

    @property
    def custom(self) -> bool:
        """Whether the org's owner added the object."""
        return self.name.endswith("__c")


class Org:
    """The whole org at one moment.

    Rows are immutable: a change replaces the row in the list, so that a caller who pages through an
    older result still sees the rows as of its query.
    """

    def __init__(
        self,
        *,
        born: datetime,
        custom_objects: int = 0,
        fields_per_object: int = 100,
        row_factor: int = 1,
    ) -> None:
        self.born = born
        self.custom_objects = custom_objects
        self._fields_per_object = fields_per_object
        self._objects: dict[str, SObject] = {}
        system = list(SYSTEM.items())
        for name, label, plural, prefix, count, text in STANDARD_OBJECTS:
            fields = dict(system[:2]) | parse_fields(text) | dict(system[2:])
            times = 1 if name == "User" else row_factor
            self._objects[name] = SObject(
                name, label, plural, prefix, fields, count * times, repeated=times
            )

    def visible(self) -> Iterator[SObject]:
        """Yield every object that the connected user may see."""
        for sobject in self._objects.values():
            if not sobject.hidden:
                yield sobject
        for number in range(1, self.custom_objects + 1):
            if _generated_name(number) not in self._objects:
                yield self._generated(number, {})

    def stored(self) -> Iterator[SObject]:
        """Yield every object except the unchanged generated ones."""
        yield from self._objects.values()

    def find(self, name: str) -> SObject | None:
        """Return the object of this name, hidden or not, or None.

        An unchanged generated object is a fresh copy each time; `adopt` stores it.
        """
        if name in self._objects:
            return self._objects[name]
        found = _GENERATED.fullmatch(name)
        if found is None or not 1 <= int(found[1]) <= self.custom_objects:
            return None
        return self._generated(int(found[1]), dict(_generated_fields(self._fields_per_object)))

    def find_visible(self, name: str) -> SObject | None:
        """Return the object of this name, or None if it is hidden or does not exist."""
        sobject = self.find(name)
        return None if sobject is None or sobject.hidden else sobject

    def adopt(self, sobject: SObject) -> None:
        """Store a new object, or a generated one that is about to change."""
        self._objects[sobject.name] = sobject

    def add(self, name: str, *, label: str, rows: int) -> None:
        """Add a custom object with the system fields, a name and an owner."""
        fields = dict(list(SYSTEM.items())[:2])
        fields |= {
            "OwnerId": Field("OwnerId", "reference", length=18, targets=("User",)),
            "Name": Field("Name", "string", length=80),
        }
        fields |= dict(list(SYSTEM.items())[2:])
        prefix = f"b{len(self._objects) % 100:02}"
        self.adopt(SObject(name, label, f"{label}s", prefix, fields, rows))

    def rows(self, sobject: SObject) -> list[Row]:
        """Return the object's rows, sorted by id."""
        if sobject._rows is None:
            sobject._rows = self._first_rows(sobject)
        return sobject._rows

    def fill(self, sobject: SObject, new: Field, values: list[Any] | None, *, at: datetime) -> int:
        """Set a new field in existing rows, to `values` in turn or to generated values.

        Rows that get a value are marked as modified at `at`. Returns their number.
        """
        rows = self.rows(sobject)
        filled = 0
        for index, old in enumerate(rows):
            value = (
                values[index % len(values)]
                if values
                else sample(
                    new,
                    f"{sobject.name}.{new.name}.{index + 1}",
                    reference=self.reference,
                    born=self.born,
                )
            )
            rows[index] = old | {new.name: value}
            if value is not None:
                rows[index] |= _modified(at)
                filled += 1
        return filled

    def touch(self, sobject: SObject, count: int, *, at: datetime) -> int:
        """Mark the first `count` rows as modified at `at`; return how many there were."""
        rows = self.rows(sobject)
        touched = min(count, len(rows))
        rows[:touched] = [old | _modified(at) for old in rows[:touched]]
        return touched

    def reference(self, target: str, number: int) -> str | None:
        """Return the id of a row of `target`."""
        sobject = self._objects.get(target)
        if sobject is None or sobject.count == 0:
            return None
        return record_id(sobject.key_prefix, number % sobject.count + 1)

    def _first_rows(self, sobject: SObject) -> list[Row]:
        distinct = sobject.count // sobject.repeated
        rows = [
            row(
                sobject.name,
                sobject.fields,
                number,
                key_prefix=sobject.key_prefix,
                reference=self.reference,
                born=self.born,
            )
            for number in range(1, distinct + 1)
        ]
        for index in range(distinct, sobject.count):
            rows.append(rows[index % distinct] | {"Id": record_id(sobject.key_prefix, index + 1)})
        return rows

    def _generated(self, number: int, fields: dict[str, Field]) -> SObject:
        name = _generated_name(number)
        return SObject(
            name,
            label_of(name),
            f"{label_of(name)}s",
            f"a{number % 36**2:02x}"[:3],
            fields,
            _ROWS_OF_A_GENERATED_OBJECT,
        )


def list_entry(sobject: SObject) -> dict[str, Any]:
    """Return the object as `sobjects` lists it."""
    root = f"/services/data/v62.0/sobjects/{sobject.name}"
    return {
        **dict.fromkeys((*_ALLOWED, "mruEnabled"), True),
        **dict.fromkeys(_FORBIDDEN, False),
        **dict.fromkeys(("associateEntityType", "associateParentEntity")),
        "custom": sobject.custom,
        "keyPrefix": sobject.key_prefix,
        "label": sobject.label,
        "labelPlural": sobject.label_plural,
        "name": sobject.name,
        "urls": {
            "sobject": root,
            "describe": f"{root}/describe",
            "rowTemplate": f"{root}/{{ID}}",
        },
    }


def describe(sobject: SObject) -> dict[str, Any]:
    """Return the object as `sobjects/{X}/describe` answers it."""
    return list_entry(sobject) | {
        "actionOverrides": [],
        "childRelationships": [],
        "compactLayoutable": True,
        "fields": [described(entry) for entry in sobject.fields.values()],
        "namedLayoutInfos": [],
        "networkScopeFieldName": None,
        "recordTypeInfos": [],
        "sobjectDescribeOption": "FULL",
        "supportedScopes": [{"label": f"All {sobject.label_plural}", "name": "everything"}],
    }


def _modified(at: datetime) -> Row:
    return {"SystemModstamp": salesforce_time(at), "LastModifiedDate": salesforce_time(at)}


def _generated_name(number: int) -> str:
    return f"Custom_{number:04}__c"


@lru_cache(maxsize=1)
def _generated_fields(count: int) -> dict[str, Field]:
    kinds: tuple[CustomType, ...] = (
        *("string", "double", "boolean", "date"),
        *("datetime", "currency", "picklist", "email"),
    )
    fields = SYSTEM | {"Name": Field("Name", "string", length=80)}
    for number in range(1, count - len(fields) + 1):
        kind = kinds[number % len(kinds)]
        name = f"Field_{number:03}__c"
        values = ("Low", "Medium", "High") if kind == "picklist" else ()
        fields[name] = custom_field(name, kind, values=values)
    return fields
