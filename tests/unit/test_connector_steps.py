"""Steps between versions of connectors, and the breaking changes in between."""

from __future__ import annotations

import pytest

from shared.domain.connector_versions import (
    MOST_GUIDES,
    Guide,
    Step,
    joined,
    number,
    passed,
    remembered,
)

GUIDES = [Guide(tag, f"https://example.org/{tag}") for tag in ("1.0.0", "10.0.0", "2.0.0", "3.0.0")]


@pytest.mark.parametrize(
    "one, other, between",
    [
        ("0.9.1", "1.0.0", ["1.0.0"]),
        ("1.0.0", "2.0.0", ["2.0.0"]),
        ("1.5.0", "10.0.0-rc.1", ["2.0.0", "3.0.0", "10.0.0"]),
        ("3.0.0", "1.0.0", ["2.0.0", "3.0.0"]),
        ("2.1.0", "2.2.0", []),
        ("dev", "2.0.0", ["2.0.0"]),
        ("2.0.0", "dev", []),
    ],
)
def test_breaking_changes_between_versions(one: str, other: str, between: list[str]) -> None:
    """By number, not by text; the version before is not among them, also on the way down."""
    assert [guide.version for guide in passed(GUIDES, one, other)] == between


def test_numbers_of_tags() -> None:
    assert number("v2.10.3") == number("2.10.3-rc.1") == (2, 10, 3)
    assert number("latest") is None


def test_consecutive_steps_are_one() -> None:
    """From the first version to the last; a return to the first is no step."""
    up = Step(from_version="1.0.0", to_version="2.0.0", breaking_changes=(GUIDES[2],))
    on = Step(from_version="2.0.0", to_version="3.0.0", breaking_changes=(GUIDES[3],))
    back = Step(from_version="2.0.0", to_version="1.0.0")
    whole = joined([up, on])
    assert whole is not None
    assert (whole.from_version, whole.to_version) == ("1.0.0", "3.0.0")
    assert whole.breaking_changes == (GUIDES[2], GUIDES[3])
    assert joined([up, up]) == up
    assert joined([]) is joined([up, back]) is None


def test_remembered_guides_are_bounded() -> None:
    """The newest versions stay, and a newer guide of a version replaces the one before."""
    many = [Guide(f"{major}.0.0", None) for major in range(MOST_GUIDES + 10)]
    kept = remembered(many, [Guide("59.0.0", "https://example.org/59")])
    assert len(kept) == MOST_GUIDES
    assert kept[0] == Guide("59.0.0", "https://example.org/59")
    assert kept[-1].version == "10.0.0"
