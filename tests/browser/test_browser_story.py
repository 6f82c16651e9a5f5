"""The story of the demo by clicking: see a healed drift, decide a rename, compare, take it back."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable

import pytest
from playwright.async_api import Locator, expect

from tests.browser.conftest import Arrives, Story
from tests.browser.person import Person, new_key

pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]

GONE = "NumberofLocations__c"
SUGGESTED = "LocationCount__c"
OTHER = "Tier__c"
WHY = "Tier__c holds it now.\nAda asked the Salesforce team."


@pytest.fixture(autouse=True)
async def repair_waits(played: Story) -> AsyncIterator[None]:
    """A rename that waits for a decision, for each test: the others are taken back."""
    if not await played.connection.proposals():
        await played.rename_again()
    yield


def choice(one: Person, name: str | re.Pattern[str]) -> Locator:
    """A choice of the change that is shown."""
    return one.page.locator("fieldset.choices").get_by_label(name)
