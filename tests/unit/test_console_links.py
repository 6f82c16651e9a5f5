"""Webhook messages link to the console's pages, and are otherwise unchanged."""

from __future__ import annotations

import json

import pytest

from services.drift_repair_agent.webhooks import messages

REPAIR = {"connection_id": "c-1", "connection_name": "A → B", "repair_id": "r-1", "changes": [{}]}
UPGRADE = {"connection_id": "c-1", "deadline": "2027-01-01"}


@pytest.mark.parametrize("console_url", ["https://aam.example.com", "https://aam.example.com/"])
@pytest.mark.parametrize("data, page", [(REPAIR, "/repairs/r-1"), (UPGRADE, "/connections/c-1")])
def test_message_links_to_its_page(data: dict[str, object], page: str, console_url: str) -> None:
    """The repair's, or else the connection's."""
    message = {"type": "repair.proposed", "timestamp": "2026-11-30T09:30:00Z", "data": data}
    sent = json.loads(messages.with_link(json.dumps(message), console_url))
    assert sent["data"].pop("console_url") == f"https://aam.example.com{page}"
    assert sent == message


def test_message_about_neither_has_no_link() -> None:
    """A test message is sent as it is."""
    body = messages.body_of_test()
    assert messages.with_link(body, "https://aam.example.com") == body
