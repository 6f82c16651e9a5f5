"""Destinations: which rules a connector's version follows, and what was found about a change."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias
from uuid import UUID

import msgspec

from shared.domain.destination._facts import (
    DEFINITIONS,
    REPOSITORY,
    RULES,
    STRICT,
    UNKNOWN,
    Rules,
    Since,
)

Verdict: TypeAlias = Literal["safe", "ask", "refuse"]
_RANK: Final = ("safe", "ask", "refuse")
_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(-[0-9A-Za-z.-]+)?(?:\+.*)?")
_UNKNOWN_RULES: Final = Rules()


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a destination, without its configuration."""

    rules: Rules = _UNKNOWN_RULES
    version: str | None = None
    """The image tag that it runs; None if it could not be read."""
    default_schema: str | None = None
    """The schema, dataset or database of its configuration; None if unknown."""
    is_raw_only: bool = False
    """Whether it writes raw tables alone, which no column or type concerns."""

    @property
    def is_known(self) -> bool:
        """Whether its kind and version are among those that AAM has rules for."""
        return self.rules.kind != UNKNOWN

    @property
    def kind(self) -> str:
        """`postgres`, `snowflake` …; `unknown` if AAM has no rules for it."""
        return self.rules.kind

    @property
    def title(self) -> str:
        """Its name and version for a message: `Postgres 3.0.14`."""
        return f"{self.rules.title} {self.version}" if self.is_known else "The destination"

    def at(self, fact: Since) -> str:
        """The value of a fact in its version; `unknown` if no value is known for it."""
        own = _number(self.version)
        reached = [value for lowest, value in fact.values if _reaches(own, lowest)]
        return reached[-1] if reached else UNKNOWN


class Finding(msgspec.Struct, frozen=True):
    """What a destination does with a change."""

    verdict: Verdict
    code: str
    message: str
    names: tuple[str, ...] = ()
    """The fields or streams that it is about: both of a clash."""
    columns: tuple[str, ...] = ()
    """The columns or tables of `names`, as far as they are known."""


def _rank(finding: Finding) -> int:
    return -_RANK.index(finding.verdict)


class Judgement(msgspec.Struct, frozen=True):
    """All findings about one change, the worst first."""

    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, destination: Destination, findings: Iterable[Finding]) -> Judgement:
        """Sort findings; of an unknown destination none refuses."""
        if not destination.is_known:
            findings = [
                msgspec.structs.replace(one, verdict="ask") if one.verdict == "refuse" else one
                for one in findings
            ]
        return cls(tuple(sorted(findings, key=_rank)))

    def joined(self, other: Judgement | None) -> Judgement:
        """The findings of both."""
        more = () if other is None else other.findings
        return Judgement(tuple(sorted((*self.findings, *more), key=_rank)))

    @property
    def verdict(self) -> Verdict:
        """The worst verdict; `safe` without findings."""
        return self.findings[0].verdict if self.findings else "safe"

    @property
    def code(self) -> str:
        """The code of the worst finding; `fits` without findings."""
        return self.findings[0].code if self.findings else "fits"

    @property
    def message(self) -> str:
        """The findings as sentences, the worst first."""
        return " ".join(dict.fromkeys(one.message for one in self.findings))


def identify(
    definition_id: UUID | None,
    repository: str | None,
    tag: str | None,
    *,
    default_schema: str | None = None,
    is_raw_only: bool = False,
) -> Destination:
    """The destination with this definition, or else this image, in the version of its tag.

    A tag that is no version, and a version that no rules cover, make it an unknown destination. A
    release candidate counts as older than its release.
    """
    kind = DEFINITIONS.get(definition_id) if definition_id is not None else None
    if kind is None and repository is not None:
        kind = _kind_of(repository)
    number = _number(tag)
    rules = next(
        (one for one in RULES if one.kind == kind and _covers(one, number)), _UNKNOWN_RULES
    )
    return Destination(
        rules=rules, version=tag, default_schema=default_schema, is_raw_only=is_raw_only
    )


def _kind_of(repository: str) -> str | None:
    name = repository.rpartition("/")[2].removesuffix(STRICT)
    kinds = set(DEFINITIONS.values())
    kind = name.removeprefix(REPOSITORY)
    return kind if name != kind and kind in kinds else None


def _covers(rules: Rules, number: tuple[int, ...] | None) -> bool:
    until = _number(rules.until)
    return _reaches(number, rules.since) and (until is None or number is None or number < until)


def _reaches(number: tuple[int, ...] | None, lowest: str) -> bool:
    least = _number(lowest)
    return number is not None and least is not None and number >= least


def _number(tag: str | None) -> tuple[int, ...] | None:
    """A version for comparisons; a release candidate is smaller than its release."""
    found = _VERSION.fullmatch(tag or "")
    if found is None:
        return None
    major, minor, patch, candidate = found.groups()
    return int(major), int(minor), int(patch), 0 if candidate else 1
