"""The repair that the tests of its page review: its addresses, choices and orders."""

from __future__ import annotations

from typing import Any

from services.console.diffs import dotted
from services.console.repair_choices import Decisions
from tests.console import repairs as shapes
from tests.console.browser import Browser, Page
from tests.console.double import Double

PATH = f"/repairs/{shapes.REPAIR_ID}"
NEWER = f"/repairs/{shapes.NEWER_ID}"
APPROVE = f"POST {PATH}/approve"


def key(change_id: str) -> str:
    """The name of a change in the form's fields."""
    items = Decisions.of(shapes.REPAIR).items
    return next(item.key for item in items if item.id == change_id)


def renamed(*path: str) -> str:
    """The value of the choice that a field was renamed to this path."""
    options = next(item for item in Decisions.of(shapes.REPAIR).items if item.id == "c2").options
    name = dotted(list(path))
    return next(one.value for one in options if one.name == name)


def orders(double: Double, verb: str = "approve") -> list[tuple[str, Any]]:
    """The decisions that were sent, with their queries."""
    return [(one.query, one.json) for one in double.of("POST", f"{PATH}/{verb}")]


async def previewed(browser: Browser, choices: dict[str, Any]) -> Page:
    """Open the repair and preview some choices."""
    await browser.get(PATH)
    return await browser.post(PATH, {"do": "preview", **choices})
