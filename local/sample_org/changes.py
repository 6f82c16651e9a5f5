"""The changes a running org supports: parameters, rules and effect of each.

A change is applied as a whole or refused. The same classes are the HTTP request bodies, the
commands, and the entries of the journal from which an org is rebuilt after a restart.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from local.sample_org import fields
from local.sample_org.org import SYSTEM, Org, SObject
from local.sample_org.sample_rows import converted
from shared.errors import Conflict, Invalid, NotFound

Name = Annotated[str, Field(pattern=r"^[A-Za-z]\w*$", max_length=80)]
Scalar = str | int | float | bool | None

_CUSTOM = re.compile(r"[A-Za-z](?:_?[A-Za-z0-9])*__c", re.ASCII)
_LONGEST_NAME = 43
_TIMES = frozenset({"CreatedDate", "LastModifiedDate", "SystemModstamp"})
"""System fields that some Salesforce objects do not have."""

_FITS: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "int": (int,),
    "double": (int, float),
    "currency": (int, float),
    "percent": (int, float),
}


class Change(BaseModel, ABC):
    """A change of the org; `apply` returns a sentence that describes the difference."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @abstractmethod
    def apply(self, org: Org, *, at: datetime) -> str:
        """Change the org, or raise and leave it unchanged."""


class AddField(Change):
    """Add a custom field with values in the rows, or restore a dropped standard field."""

    verb: Literal["add_field"] = "add_field"
    object: Name
    name: Name
    type: fields.CustomType = "string"
    label: str = Field(default="", max_length=80)
    length: int | None = Field(default=None, ge=1, le=131_072)
    precision: int = Field(default=18, ge=1, le=18)
    scale: int | None = Field(default=None, ge=0, le=17)
    picklist: tuple[str, ...] = Field(default=("Low", "Medium", "High"), max_length=1000)
    """The entries of a picklist."""
    reference_to: Name = "Account"
    """The object that a reference points to."""
    values: list[Scalar] | None = Field(default=None, min_length=1, max_length=10_000)
    """Values for existing rows, used in turn; generated if omitted."""

    def apply(self, org: Org, *, at: datetime) -> str:
        """Mark rows that get a value as modified, so that an incremental sync reads them."""
        sobject = find_object(org, self.object)
        if self.name in sobject.removed:
            return self._restore(org, sobject)
        if self.name in sobject.fields:
            raise Conflict(f"{sobject.name} already has a field {self.name}.", code="field_exists")
        _require_custom_name(self.name)
        if self.type == "reference" and org.find_visible(self.reference_to) is None:
            raise NotFound(f"There is no object {self.reference_to} to refer to.")
        picks = self.picklist if self.type in {"picklist", "multipicklist"} else ()
        new = fields.custom_field(
            self.name,
            self.type,
            label=self.label,
            length=self.length,
            precision=self.precision,
            scale=self.scale,
            values=picks,
            targets=(self.reference_to,),
        )
        _require_fitting(new, self.values or [])
        org.adopt(sobject)
        filled = org.fill(sobject, new, self.values, at=at)
        sobject.fields[self.name] = new
        return (
            f"{sobject.name} has a new field {self.name} ({self.type}); {filled} rows got a value."
        )

    def _restore(self, org: Org, sobject: SObject) -> str:
        org.adopt(sobject)
        sobject.fields[self.name] = sobject.removed.pop(self.name)
        return f"{sobject.name} shows its standard field {self.name} again."


class DropField(Change):
    """Delete a custom field, or hide a standard one from the connected user."""

    verb: Literal["drop_field"] = "drop_field"
    object: Name
    name: Name

    def apply(self, org: Org, *, at: datetime) -> str:  # noqa: ARG002 -- no row is modified
        """Delete a custom field; hide a standard one, as if its read access were revoked.

        Salesforce does not allow hiding a record's timestamps. This org does, so that an object can
        be made impossible to read incrementally.
        """
        sobject = find_object(org, self.object)
        old = _field(sobject, self.name)
        if self.name in SYSTEM and self.name not in _TIMES:
            raise Invalid(f"{self.name} is a system field: no object can be without it.")
        if not old.custom:
            org.adopt(sobject)
            sobject.removed[self.name] = sobject.fields.pop(self.name)
            return f"{sobject.name} no longer shows its standard field {self.name}."
        org.adopt(sobject)
        rows = org.rows(sobject)
        rows[:] = [{key: row[key] for key in row if key != self.name} for row in rows]
        del sobject.fields[self.name]
        return f"{sobject.name} no longer has the field {self.name}."


class RenameField(Change):
    """Give a custom field another API name; its values stay."""

    verb: Literal["rename_field"] = "rename_field"
    object: Name
    name: Name
    to: Name

    def apply(self, org: Org, *, at: datetime) -> str:  # noqa: ARG002 -- no row is modified
        """Rename without marking rows as modified: Salesforce keeps SystemModstamp here."""
        sobject = find_object(org, self.object)
        old = _custom_field(sobject, self.name)
        if self.to in sobject.fields or self.to in sobject.removed:
            raise Conflict(f"{sobject.name} already has a field {self.to}.", code="field_exists")
        _require_custom_name(self.to)
        org.adopt(sobject)
        rows = org.rows(sobject)
        rows[:] = [
            {self.to if key == self.name else key: value for key, value in row.items()}
            for row in rows
        ]
        label = "" if old.label == fields.label_of(old.name) else old.own_label
        renamed = replace(old, name=self.to, own_label=label)
        sobject.fields = {
            (self.to if key == self.name else key): (renamed if key == self.name else value)
            for key, value in sobject.fields.items()
        }
        return f"The field {self.name} of {sobject.name} is now named {self.to}."


class RetypeField(Change):
    """Change the type of a custom field; values that do not fit become empty."""

    verb: Literal["retype_field"] = "retype_field"
    object: Name
    name: Name
    type: fields.CustomType

    def apply(self, org: Org, *, at: datetime) -> str:  # noqa: ARG002 -- no row is modified
        """Convert without marking rows as modified: Salesforce keeps SystemModstamp here."""
        sobject = find_object(org, self.object)
        old = _custom_field(sobject, self.name)
        if old.type == self.type:
            raise Conflict(f"{self.name} of {sobject.name} is already of type {self.type}.")
        picks = old.values or ("Low", "Medium", "High")
        new = fields.custom_field(
            self.name,
            self.type,
            label=old.own_label,
            values=picks if self.type in {"picklist", "multipicklist"} else (),
            targets=("Account",),
        )
        new = replace(new, queryable=old.queryable)
        org.adopt(sobject)
        rows = org.rows(sobject)
        rows[:] = [row | {self.name: converted(row.get(self.name), new)} for row in rows]
        sobject.fields[self.name] = new
        return f"{self.name} of {sobject.name} is now of type {self.type}, no longer {old.type}."


class ForbidField(Change):
    """Make queries reject a field that is still described."""

    verb: Literal["forbid_field"] = "forbid_field"
    object: Name
    name: Name

    def apply(self, org: Org, *, at: datetime) -> str:  # noqa: ARG002 -- no row is modified
        """Simulate read access revoked between a describe and the queries made from it."""
        sobject = find_object(org, self.object)
        old = _field(sobject, self.name)
        if not old.queryable:
            raise Conflict(f"Queries already reject {self.name} of {sobject.name}.")
        org.adopt(sobject)
        sobject.fields[self.name] = replace(old, queryable=False)
        return f"Queries reject the field {self.name} of {sobject.name}, which is still described."


class AllowField(Change):
    """Let queries read a forbidden field again."""

    verb: Literal["allow_field"] = "allow_field"
    object: Name
    name: Name

    def apply(self, org: Org, *, at: datetime) -> str:  # noqa: ARG002 -- no row is modified
        """Restore access; the values have not changed."""
        sobject = find_object(org, self.object)
        old = _field(sobject, self.name)
        if old.queryable:
            raise Conflict(f"Queries can already read {self.name} of {sobject.name}.")
        sobject.fields[self.name] = replace(old, queryable=True)
        return f"Queries can read the field {self.name} of {sobject.name} again."


class AddObject(Change):
    """Add a custom object with system fields, a name, an owner and a few rows."""

    verb: Literal["add_object"] = "add_object"
    name: Name
    label: str = Field(default="", max_length=80)
    rows: int = Field(default=10, ge=0, le=10_000)

    def apply(self, org: Org, *, at: datetime) -> str:  # noqa: ARG002 -- rows have the org's creation date
        """Add the object; its name must end in `__c`, like that of every custom object."""
        if org.find(self.name) is not None:
            raise Conflict(f"There is already an object {self.name}.", code="object_exists")
        _require_custom_name(self.name)
        label = self.label or fields.label_of(self.name)
        org.add(self.name, label=label, rows=self.rows)
        return f"The org has a new object {self.name} with {self.rows} rows."


class HideObject(Change):
    """Hide an object from the connected user."""

    verb: Literal["hide_object"] = "hide_object"
    object: Name

    def apply(self, org: Org, *, at: datetime) -> str:  # noqa: ARG002 -- no row is modified
        """Hide the object; its rows stay and return with `show_object`."""
        sobject = find_object(org, self.object)
        if sobject.hidden:
            raise Conflict(f"{sobject.name} is already hidden.")
        org.adopt(sobject)
        sobject.hidden = True
        return f"{sobject.name} is hidden from the connected user."


class ShowObject(Change):
    """Show a hidden object to the connected user again."""

    verb: Literal["show_object"] = "show_object"
    object: Name

    def apply(self, org: Org, *, at: datetime) -> str:  # noqa: ARG002 -- no row is modified
        """Show the object in the state in which it was hidden."""
        sobject = find_object(org, self.object)
        if not sobject.hidden:
            raise Conflict(f"{sobject.name} is not hidden.")
        sobject.hidden = False
        return f"{sobject.name} is visible to the connected user again."


class Touch(Change):
    """Mark rows as modified now, as an edit in Salesforce would."""

    verb: Literal["touch"] = "touch"
    object: Name
    count: int = Field(default=1, ge=1, le=1_000_000)

    def apply(self, org: Org, *, at: datetime) -> str:
        """Modify the first rows by id."""
        sobject = find_object(org, self.object)
        org.adopt(sobject)
        touched = org.touch(sobject, self.count, at=at)
        return f"{touched} rows of {sobject.name} have a new SystemModstamp."


AnyChange = Annotated[
    AddField
    | DropField
    | RenameField
    | RetypeField
    | ForbidField
    | AllowField
    | AddObject
    | HideObject
    | ShowObject
    | Touch,
    Field(discriminator="verb"),
]


def find_object(org: Org, name: str) -> SObject:
    """Return the object of this name, hidden or not.

    Raises:
        NotFound: there is no such object.
    """
    sobject = org.find(name)
    if sobject is None:
        raise NotFound(f"The org has no object {name}.")
    return sobject


def _field(sobject: SObject, name: str) -> fields.Field:
    field = sobject.fields.get(name)
    if field is None:
        raise NotFound(f"{sobject.name} has no field {name}.")
    return field


def _custom_field(sobject: SObject, name: str) -> fields.Field:
    field = _field(sobject, name)
    if not field.custom:
        raise Invalid(f"{name} is a standard field of {sobject.name}: its name and type are fixed.")
    return field


def _require_custom_name(name: str) -> None:
    if _CUSTOM.fullmatch(name) is None or len(name) > _LONGEST_NAME:
        raise Invalid(
            "A custom name has letters, digits and single underscores, ends in __c and has at most "
            f"{_LONGEST_NAME} characters."
        )


def _require_fitting(field: fields.Field, values: list[Any]) -> None:
    allowed = _FITS.get(field.type, (str,))
    for index, value in enumerate(values):
        if value is not None and not _fits(value, field, allowed):
            raise Invalid(f"Value {index + 1} does not fit a field of type {field.type}.")


def _fits(value: Any, field: fields.Field, allowed: tuple[type, ...]) -> bool:
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        return False
    if isinstance(value, str) and field.length and len(value) > field.length:
        return False
    return field.type == "reference" or converted(value, field) is not None
