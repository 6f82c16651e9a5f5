"""One field of an object, and its description by Salesforce."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import orjson

CustomType = Literal[
    "string",
    "textarea",
    "boolean",
    "int",
    "double",
    "currency",
    "percent",
    "date",
    "datetime",
    "picklist",
    "multipicklist",
    "email",
    "phone",
    "url",
    "reference",
]
"""Types of custom fields. `int` is not a Salesforce type, but useful for tests of widening."""

CUSTOM_TYPES: tuple[str, ...] = get_args(CustomType)
NUMBERS = frozenset({"int", "double", "currency", "percent"})

_TEXTS = frozenset(CUSTOM_TYPES) - NUMBERS | {"id", "combobox"}

_DEFAULT_LENGTH = {"textarea": 32768, "email": 80, "phone": 40, "multipicklist": 4099}
_SOAP = {
    "id": "tns:ID",
    "reference": "tns:ID",
    "boolean": "xsd:boolean",
    "int": "xsd:int",
    "double": "xsd:double",
    "currency": "xsd:double",
    "percent": "xsd:double",
    "date": "xsd:date",
    "datetime": "xsd:dateTime",
    "address": "urn:address",
}
_NEVER_WRITTEN = frozenset(
    {"Id", "IsDeleted", "CreatedDate", "CreatedById", "LastModifiedDate", "LastModifiedById"}
    | {"SystemModstamp", "LastActivityDate", "LastViewedDate", "LastReferencedDate"}
)

_FALSE = """
    aiPredictionField autoNumber calculated cascadeDelete caseSensitive custom defaultedOnCreate
    dependentPicklist deprecatedAndHidden displayLocationInDecimal encrypted externalId
    formulaTreatNullNumberAsZero highScaleNumber htmlFormatted idLookup nameField namePointing
    polymorphicForeignKey queryByDistance restrictedDelete restrictedPicklist searchPrefilterable
    unique writeRequiresMasterRead
"""
_TRUE = "aggregatable createable filterable groupable nillable permissionable sortable updateable"
_NONE = """
    calculatedFormula compoundFieldName controllerName defaultValue defaultValueFormula
    extraTypeInfo filteredLookupInfo inlineHelpText mask maskType referenceTargetField
    relationshipName relationshipOrder
"""
_PLAIN: dict[str, Any] = {
    **dict.fromkeys(_FALSE.split(), False),
    **dict.fromkeys(_NONE.split()),
    **dict.fromkeys(_TRUE.split(), True),
    **dict.fromkeys(("byteLength", "digits", "length", "precision", "scale"), 0),
    "label": "",
    "name": "",
    "picklistValues": [],
    "referenceTo": [],
    "soapType": "xsd:string",
    "type": "string",
}
"""The properties of a plain text field, as Salesforce describes it."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an object. Its values are in the rows, under the field's name."""

    name: str
    type: str
    length: int = 0
    precision: int = 0
    scale: int = 0
    values: tuple[str, ...] = ()
    """A picklist's entries."""
    targets: tuple[str, ...] = ()
    """The objects a reference may point to."""
    own_label: str = ""
    queryable: bool = True
    """False if the field is described, but rejected by every query that names it."""

    @property
    def custom(self) -> bool:
        """Whether the org's owner added it; only such a field can be renamed or retyped."""
        return self.name.endswith("__c")

    @property
    def label(self) -> str:
        """The display name."""
        return self.own_label or label_of(self.name)

    def describe(self) -> dict[str, Any]:
        """Describe the field as `sobjects/{X}/describe` does, with all of its properties."""
        written = self.name not in _NEVER_WRITTEN
        long_text = self.type == "textarea" and self.length > 255
        return _PLAIN | {
            "aggregatable": not long_text and self.type != "address",
            "byteLength": self.length * 3 if self.type in _TEXTS else 0,
            "caseSensitive": self.type == "id",
            "createable": written,
            "custom": self.custom,
            "defaultValue": False if self.type == "boolean" else None,
            "digits": self.precision if self.type == "int" else 0,
            "filterable": not long_text,
            "groupable": self.type not in NUMBERS | {"datetime", "address"} and not long_text,
            "idLookup": self.name in {"Id", "Name", "Email", "Username"},
            "label": self.label,
            "length": self.length,
            "name": self.name,
            "nameField": self.name in {"Name", "CaseNumber", "Subject"},
            "nillable": written and self.type != "boolean",
            "permissionable": written and self.type != "id",
            "picklistValues": [
                {
                    "active": True,
                    "defaultValue": False,
                    "label": value,
                    "validFor": None,
                    "value": value,
                }
                for value in self.values
            ],
            "polymorphicForeignKey": len(self.targets) > 1,
            "precision": 0 if self.type == "int" else self.precision,
            "referenceTo": list(self.targets),
            "relationshipName": self._relationship if self.targets else None,
            "scale": self.scale,
            "soapType": _SOAP.get(self.type, "xsd:string"),
            "sortable": not long_text and self.type != "address",
            "type": self.type,
            "updateable": written,
        }

    @property
    def _relationship(self) -> str:
        if self.custom:
            return f"{self.name.removesuffix('__c')}__r"
        return self.name.removesuffix("Id")


@lru_cache(maxsize=10_000)
def described(field: Field) -> orjson.Fragment:
    """Serialize a field's description, cached since a big org repeats fields in every object."""
    return orjson.Fragment(orjson.dumps(field.describe()))


def custom_field(
    name: str,
    kind: CustomType,
    *,
    label: str = "",
    length: int | None = None,
    precision: int = 18,
    scale: int | None = None,
    values: tuple[str, ...] = (),
    targets: tuple[str, ...] = (),
) -> Field:
    """Build a custom field, with Salesforce's defaults for omitted parameters."""
    if kind in NUMBERS:
        decimals = (0 if kind == "int" else 2) if scale is None else scale
        return Field(name, kind, precision=precision, scale=decimals, own_label=label)
    if kind in {"boolean", "date", "datetime"}:
        return Field(name, kind, own_label=label)
    if kind == "reference":
        return Field(name, kind, length=18, targets=targets, own_label=label)
    default = _DEFAULT_LENGTH.get(kind, 255)
    return Field(name, kind, length=length or default, values=values, own_label=label)


def label_of(name: str) -> str:
    """Derive a label from an API name: `NumberofLocations__c` becomes `Numberof Locations`."""
    words = name.removesuffix("__c").removesuffix("Id") or name
    return re.sub(r"(?<=[a-z])(?=[A-Z0-9])|_", " ", words)
