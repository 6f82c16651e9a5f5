"""Merges an order with a credential's document, and validates the result by a specification.

Values in a document may be text, as an environment has it, with names in another case; both are
adapted to the specification. `const` values, and defaults of required members, are filled in,
since Airbyte's server only validates.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import jsonschema_rs

from shared.domain.did_you_mean import did_you_mean
from shared.domain.specification import _model as model
from shared.domain.specification._leaves import Pointer, steps_of
from shared.domain.specification._model import Fault, Json, Path, Specification

REFERENCE = "secret_coordinate::"
"""The prefix of a reference to a secret in Airbyte's own store.

Source: airbyte-platform 1.7.0, SecretsHelpers.SECRET_REF_PREFIX.
"""
_RESERVED = "_secret"
"""How the names begin that Airbyte gives its own members: `_secret`, `_secret_storage_id`, …"""
_MOST_FAULTS = 20
_MOST_NAMED = 10
_LEAF_KEYWORDS = (
    *("type", "enum", "const", "pattern", "minLength", "maxLength", "minimum", "maximum"),
    *("exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems"),
    *("uniqueItems", "minProperties", "maxProperties"),
)
_TRUE = frozenset({"true", "1", "yes", "y", "on", "t"})
_FALSE = frozenset({"false", "0", "no", "n", "off", "f"})
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Complete:
    """A merged configuration with everything filled in; it holds secrets unless it has faults."""

    configuration: Json = field(repr=False)
    document: Json = field(repr=False)
    """The credential's part, with the names of the specification."""
    faults: tuple[Fault, ...]


def faults_of_order(specification: Specification, configuration: Json) -> tuple[Fault, ...]:
    """What an order must not contain, whatever the credential adds to it.

    Secrets, names that are reserved for Airbyte, and names that no variant has.
    """
    faults = _order_faults([specification.schema], configuration, ())
    return tuple(found for found, _ in zip(faults, range(_MOST_FAULTS), strict=False))


def _order_faults(nodes: Sequence[Json], value: Any, path: Path) -> Iterator[Fault]:
    if model.is_secret(nodes):
        message = (
            "is a secret: it must come from the store of the credential that `credential_id` names."
        )
        yield Fault(path, "secret_in_order", message, is_secret=True)
        return
    if isinstance(value, dict):
        every = [one for node in nodes for one in model.variants(node)]
        known = model.members(every)
        is_free, unnamed = _is_free(every), model.unnamed_members(every)
        for name, each in value.items():
            at = (*path, name)
            if name.startswith(_RESERVED):
                yield _reserved(at)
            elif name not in known and not is_free:
                yield _unknown(at, known)
            else:
                yield from _order_faults(known.get(name) or unnamed, each, at)
    elif isinstance(value, list):
        inner = model.below(nodes, 0)
        for number, each in enumerate(value):
            yield from _order_faults(inner, each, (*path, number))


def complete(specification: Specification, order: Json, document: Json) -> Complete:
    """Merge, fill in and validate a configuration; without faults it fits the specification.

    `document` may have names in another case, and text for other types. Where both parts have a
    value that is not secret, the order's counts.
    """
    adapted, faults = _adapted([specification.schema], document, ())
    if not isinstance(adapted, dict):
        adapted = {}
    merged = _merged(order, adapted, (), faults)
    checked = _Check(faults)
    checked.fill([specification.schema], merged, ())
    if not faults:
        checked.whole(specification.schema, merged)
    return Complete(merged, adapted, tuple(faults[:_MOST_FAULTS]))


def references(configuration: Json) -> list[Path]:
    """The paths at which a configuration refers to a secret of Airbyte's own store."""
    return list(_references(configuration, ()))


def _references(value: Any, path: Path) -> Iterator[Path]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _references(each, (*path, name))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _references(each, (*path, number))
    elif isinstance(value, str) and value.startswith(REFERENCE):
        yield path


def is_secret_path(specification: Specification, path: Path) -> bool:
    """Whether a value at this path is a secret, in any variant."""
    nodes: list[Json] = [specification.schema]
    for step in path:
        nodes = model.below(nodes, step)
        if model.is_secret(nodes):
            return True
    return False


def has_member(specification: Specification, name: str) -> bool:
    """Whether a configuration may have this member at the top, in any variant."""
    return bool(model.below([specification.schema], name))


def is_restorable(specification: Specification, pointer: Pointer, mask: str) -> bool:
    """Whether Airbyte restores a secret for which its mask is sent; otherwise it stores the mask.

    It restores none in arrays, and none beside a `oneOf`, and only a variant that the mask fits.

    Source: airbyte-platform 310e6cb6ac, JsonSecretsProcessor.copySecretsRecursive
    """
    return _is_restorable(specification.schema, steps_of(pointer), mask)


def _is_restorable(node: Any, steps: Sequence[str], mask: str) -> bool:
    if not isinstance(node, Mapping):
        return False
    for combination in ("allOf", "anyOf", "oneOf"):
        branches = node.get(combination)
        if isinstance(branches, list):
            return any(_is_restorable(branch, steps, mask) for branch in branches)
    properties = node.get("properties")
    child = properties.get(steps[0]) if isinstance(properties, Mapping) else None
    if not isinstance(child, Mapping):
        return False
    if len(steps) > 1:
        return _is_restorable(child, steps[1:], mask)
    rules = {name: child[name] for name in _LEAF_KEYWORDS if name in child}
    return child.get("airbyte_secret") is True and not _errors(rules, mask)


# The credential's document


def _adapted(nodes: Sequence[Json], value: Any, path: Path) -> tuple[Any, list[Fault]]:
    """A value of a document with the specification's names and types; nothing where empty."""
    faults: list[Fault] = []
    every = [one for node in nodes for one in model.variants(node)]
    value = _converted(every, value)
    if isinstance(value, Mapping):
        known, unnamed = model.members(every), model.unnamed_members(every)
        by_case: dict[str, list[str]] = {}
        for name in known:
            by_case.setdefault(name.casefold(), []).append(name)
        found: Json = {}
        for name, each in value.items():
            alike = by_case.get(str(name).casefold(), [])
            proper = alike[0] if name not in known and len(alike) == 1 else str(name)
            at = (*path, proper)
            if proper.startswith(_RESERVED):
                faults.append(_reserved(at))
                continue
            if proper in found:
                faults.append(Fault(at, "conflict", "is in the credential twice."))
                continue
            inner, more = _adapted(known.get(proper) or unnamed, each, at)
            faults += more
            if inner is not None:
                found[proper] = inner
        return found, faults
    if isinstance(value, list):
        of = model.below(nodes, 0)
        listed = [_adapted(of, each, (*path, number)) for number, each in enumerate(value)]
        return [one for one, _ in listed], [fault for _, more in listed for fault in more]
    return (None if value == "" else value), faults


def _converted(every: Sequence[Json], value: Any) -> Any:
    """Text as the type that all variants want, and numbered members as an array."""
    types = {one for node in every for one in _types(node)}
    if isinstance(value, Mapping) and "array" in types and "object" not in types:
        numbers = [str(number) for number in range(len(value))]
        return [value[number] for number in numbers] if sorted(value) == sorted(numbers) else value
    if not isinstance(value, str) or not types or "string" in types:
        return value
    if "boolean" in types and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    if types & {"integer", "number"} and _NUMBER.fullmatch(value):
        return _number(value, is_whole="number" not in types)
    if types & {"array", "object"} and value[:1] in ("[", "{"):
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def _number(text: str, *, is_whole: bool) -> Any:
    if _INTEGER.fullmatch(text):
        return int(text)
    number = float(text)
    return text if is_whole or math.isinf(number) else number


def _types(node: Json) -> list[str]:
    """The types that a schema accepts, as far as it says."""
    found = node.get("type")
    if isinstance(found, str):
        return [found]
    if isinstance(found, list):
        return [one for one in found if isinstance(one, str)]
    if "properties" in node:
        return ["object"]
    values = [node["const"]] if "const" in node else node.get("enum")
    return (
        ["string"] if isinstance(values, list) and any(isinstance(v, str) for v in values) else []
    )


def _merged(order: Any, document: Any, path: Path, faults: list[Fault]) -> Any:
    if isinstance(order, dict) and isinstance(document, dict):
        whole = {**copy.deepcopy(document)}
        for name, each in order.items():
            at = (*path, name)
            whole[name] = (
                _merged(each, document[name], at, faults)
                if name in document
                else copy.deepcopy(each)
            )
        return whole
    if isinstance(order, list) and isinstance(document, list):
        if len(order) != len(document):
            message = (
                f"has {len(order)} items in the order and {len(document)} in the credential: both "
                "must have the same number."
            )
            faults.append(Fault(path, "conflict", message))
            return copy.deepcopy(order)
        return [
            _merged(each, document[number], (*path, number), faults)
            for number, each in enumerate(order)
        ]
    if isinstance(order, dict | list) or isinstance(document, dict | list):
        message = "has another type in the order than in the credential."
        faults.append(Fault(path, "conflict", message))
    return copy.deepcopy(order)


# Validation


class _Check:
    """Completes a configuration in place, and collects its faults."""

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults
        self._rules: dict[int, tuple[Json, Json, jsonschema_rs.Draft7Validator | None]] = {}
        """By the id of a schema, which is held so that the id stays its own."""

    def fill(self, nodes: Sequence[Json], value: Any, path: Path) -> None:
        """Complete and check one value, by the schemas that all apply to it."""
        if len(self._faults) >= _MOST_FAULTS:
            return
        applying = [one for node in nodes for one in self._applying(node, value, path)]
        if self._check_value(applying, value, path):
            if isinstance(value, dict):
                self._fill_members(applying, value, path)
            elif isinstance(value, list):
                inner = model.items(applying)
                for number, each in enumerate(value):
                    self.fill(inner, each, (*path, number))

    def whole(self, schema: Json, value: Json) -> None:
        """Check everything by the specification itself; its rarer rules are only checked here."""
        try:
            validator = jsonschema_rs.Draft7Validator(schema, validate_formats=False)
            errors = list(validator.iter_errors(value))
        except (ValueError, RecursionError):
            return  # the specification is no valid schema: Airbyte's server decides
        for error in errors[:_MOST_FAULTS]:
            path = tuple(error.instance_path)
            message = f"breaks the specification's rule `{error.kind.name}`."
            self._faults.append(Fault(path, "invalid", message))

    def _applying(self, node: Json, value: Any, path: Path) -> Iterator[Json]:
        """A schema, those of its `allOf`, and the chosen one of its `oneOf` and `anyOf`."""
        yield node
        parts = node.get("allOf")
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                yield from self._applying(part, value, path)
        for combination in ("oneOf", "anyOf"):
            branches = node.get(combination)
            if not isinstance(branches, list):
                continue
            branch = self._branch([one for one in branches if isinstance(one, dict)], value, path)
            if branch is not None:
                yield from self._applying(branch, value, path)

    def _branch(self, branches: Sequence[Json], value: Any, path: Path) -> Json | None:
        """The variant that a value is of; None, and perhaps a fault, where that is unclear."""
        fitting = [one for one in branches if _accepts_type(one, value)]
        if not isinstance(value, dict):
            return fitting[0] if len(fitting) == 1 else None
        named = [one for one in fitting if _constants(one).keys() & value.keys()]
        if named:
            fitting = [
                one
                for one in named
                if all(value[name] == of for name, of in _constants(one).items() if name in value)
            ]
            if not fitting:
                self._faults.append(_unknown_variant(named, value, path))
                return None
        if len(fitting) > 1:
            fitting = [one for one in fitting if _has_required(one, value)] or fitting
            fitting = [one for one in fitting if value.keys() <= _names(one)] or fitting
        if len(fitting) == 1:
            return fitting[0]
        told_apart = [one for one in fitting if _constants(one)]
        if len(told_apart) > 1:
            self._faults.append(_unknown_variant(told_apart, value, path))
        return None

    def _check_value(self, applying: Sequence[Json], value: Any, path: Path) -> bool:
        """Check the value itself, without its members; False if their check makes no sense."""
        for node in applying:
            for error in self._errors(node, value):
                message = _rule(error, node)
                is_secret = model.is_secret(applying)
                self._faults.append(Fault(path, "invalid", message, is_secret=is_secret))
                return False
        return True

    def _errors(self, node: Json, value: Any) -> list[jsonschema_rs.ValidationError]:
        known = self._rules.get(id(node))
        if known is None:
            rules = {name: node[name] for name in _LEAF_KEYWORDS if name in node}
            known = self._rules[id(node)] = node, rules, _validator(rules)
        _, rules, validator = known
        return _errors(rules, value) if validator is None else list(validator.iter_errors(value))

    def _fill_members(self, applying: Sequence[Json], value: Json, path: Path) -> None:
        known = model.members(applying)
        if not _is_free(applying):
            for name in value:
                if name not in known and not _is_in_a_variant(applying, name):
                    self._faults.append(_unknown((*path, name), known))
        required = {
            name
            for node in applying
            if isinstance(listed := node.get("required"), list)
            for name in listed
            if isinstance(name, str)
        }
        for name, nodes in known.items():
            if name not in value:
                _fill_in(value, name, nodes, is_required=name in required)
        for name in sorted(required - value.keys()):
            is_secret = model.is_secret(known.get(name, []))
            self._faults.append(Fault((*path, name), "missing", "is missing.", is_secret=is_secret))
        unnamed = model.unnamed_members(applying)
        for name, each in value.items():
            self.fill(known.get(name) or unnamed, each, (*path, name))


def _fill_in(value: Json, name: str, nodes: Sequence[Json], *, is_required: bool) -> None:
    """Set a member that is not given to its only value, or to the default of a required one."""
    if model.is_secret(nodes):
        return
    for node in nodes:
        if "const" in node:
            value[name] = copy.deepcopy(node["const"])
        elif is_required and node.get("default") not in (None, ""):
            value[name] = copy.deepcopy(node["default"])


def _validator(rules: Json) -> jsonschema_rs.Draft7Validator | None:
    """A validator; None if a rule is not valid."""
    try:
        return jsonschema_rs.Draft7Validator(rules, validate_formats=False)
    except ValueError:
        return None


def _errors(rules: Json, value: Any) -> list[jsonschema_rs.ValidationError]:
    validator = _validator(rules)
    if validator is not None:
        return list(validator.iter_errors(value))
    # A rule that is not valid, such as a pattern in another dialect, is left to Airbyte.
    if len(rules) == 1:
        return []
    return [error for name in rules for error in _errors({name: rules[name]}, value)]


def _rule(error: jsonschema_rs.ValidationError, node: Json) -> str:
    """The broken rule as a sentence; it quotes the specification, never the value."""
    keyword = error.kind.name
    limit = node.get(keyword)
    if keyword == "type":
        return f"must be of the type {' or '.join(_types(node))}."
    if keyword in ("enum", "const"):
        values = limit if isinstance(limit, list) else [limit]
        return f"must be {_listed(values)}."
    if keyword == "pattern":
        described = node.get("pattern_descriptor")
        shown = described if isinstance(described, str) else limit
        return f"must match the pattern {str(shown)[:200]}."
    if isinstance(limit, int | float) and keyword in _LIMITS:
        return _LIMITS[keyword].format(limit)
    return f"breaks the specification's rule `{keyword}`."


_LIMITS = {
    "minimum": "must be at least {}.",
    "maximum": "must be at most {}.",
    "exclusiveMinimum": "must be greater than {}.",
    "exclusiveMaximum": "must be less than {}.",
    "multipleOf": "must be a multiple of {}.",
    "minLength": "must have at least {} characters.",
    "maxLength": "must have at most {} characters.",
    "minItems": "must have at least {} items.",
    "maxItems": "must have at most {} items.",
    "uniqueItems": "must not have an item twice.",
    "minProperties": "must have at least {} members.",
    "maxProperties": "must have at most {} members.",
}


def _constants(branch: Json) -> Json:
    """The members that tell a variant apart, each with its only value."""
    found: Json = {}
    for name, nodes in model.members([branch]).items():
        for node in nodes:
            values = node.get("enum")
            if "const" in node:
                found[name] = node["const"]
            elif isinstance(values, list) and len(values) == 1:
                found[name] = values[0]
    return found


def _names(branch: Json) -> set[str]:
    return set(model.members(list(model.variants(branch))))


def _has_required(branch: Json, value: Json) -> bool:
    required = branch.get("required")
    constants = _constants(branch)
    names = required if isinstance(required, list) else []
    return all(name in value or name in constants for name in names)


def _accepts_type(branch: Json, value: Any) -> bool:
    rules = {"type": types} if (types := _types(branch)) else {}
    return not rules or not _errors(rules, value)


def _is_free(nodes: Sequence[Json]) -> bool:
    """Whether an object may have members of any name: it lists none, or gives their schema."""
    if model.unnamed_members(nodes):
        return True
    return not any("properties" in node for node in nodes)


def _is_in_a_variant(applying: Sequence[Json], name: str) -> bool:
    """Whether a variant that could not be chosen has the name; then the choice is the fault."""
    chosen = {id(one) for one in applying}
    for node in applying:
        for combination in ("oneOf", "anyOf"):
            listed = node.get(combination)
            branches = [one for one in listed if isinstance(one, dict)] if listed else []
            if chosen.isdisjoint(map(id, branches)) and any(name in _names(b) for b in branches):
                return True
    return False


def _unknown(path: Path, known: Mapping[str, Any]) -> Fault:
    name = str(path[-1])
    if not model.is_word(name):
        return Fault(path, "unknown", "is not in the connector's specification.")
    hint = did_you_mean(name, [one for one in known if model.is_word(one)])
    return Fault(path, "unknown", f"is not in the connector's specification{hint}")


def _reserved(path: Path) -> Fault:
    return Fault(path, "reserved_key", "is a name that Airbyte uses for its own members.")


def _unknown_variant(branches: Sequence[Json], value: Json, path: Path) -> Fault:
    """The fault of a value that is of no known variant, or does not say of which one it is."""
    names = [name for one in branches for name in _constants(one)]
    name = max(dict.fromkeys(names), key=lambda one: (one in value, names.count(one)))
    values = [of for one in branches if (of := _constants(one).get(name)) is not None]
    at = (*path, name)
    if name in value:
        return Fault(at, "variant", f"must be {_listed(values)}.")
    return Fault(at, "variant", f"is missing: it says which variant this is, {_listed(values)}.")


def _listed(values: Sequence[Any]) -> str:
    """Values of a specification, which are public, as a part of a sentence."""
    shown = [repr(one)[:80] for one in dict.fromkeys(map(_hashable, values))]
    more = [f"{len(shown) - _MOST_NAMED} more"] if len(shown) > _MOST_NAMED else []
    return " or ".join([*shown[:_MOST_NAMED], *more])


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)
