"""Reading a list page by page."""

from __future__ import annotations

from typing import Any

import httpx


async def pages(client: httpx.AsyncClient, path: str, **parameters: Any) -> list[list[Any]]:
    """Return the items of each page, by following `next` from the first page."""
    found: list[list[Any]] = []
    after: dict[str, str] = {}
    while True:
        answer = await client.get(path, params={**parameters, **after})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found.append(page["items"])
        if page["next"] is None:
            return found
        after = {"after": page["next"]}
