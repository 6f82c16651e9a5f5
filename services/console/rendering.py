"""Pages from templates: everything escaped, and what every page needs put in."""

from __future__ import annotations

import secrets
from datetime import UTC
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from services.console import csrf, text
from services.console.assets import Assets
from services.console.cookies import Cookies
from services.console.navigation import NAVIGATION
from services.console.session import Session

_TEMPLATES: Final = Path(__file__).parent / "templates"


class Pages:
    """Renders the templates; one per process."""

    def __init__(
        self, assets: Assets, cookies: Cookies, *, installation: str, airbyte_ui: str
    ) -> None:
        self._cookies = cookies
        self._environment = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=text.finalized,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters.update(
            {
                "name": text.visible_name,
                "exact": text.exact,
                "iso": text.iso,
                "utc": text.utc,
                "clock": text.clock,
                "shown": text.shown,
                "zone_name": text.zone_name,
                "count": text.count,
                "address": text.address,
            }
        )
        self._environment.globals.update(
            {
                "static": assets.url,
                "installation": installation,
                "airbyte_ui": airbyte_ui,
                "navigation": NAVIGATION,
                "new_idempotency_key": lambda: secrets.token_urlsafe(24),
            }
        )

    def render(
        self, request: Request, template: str, /, *, status: int = 200, **context: Any
    ) -> HTMLResponse:
        """A page, or a fragment of one, as a response.

        Templates also have `viewer` (the Session), `csrf_token`, `theme`, `time_mode`,
        `zone`, `keys_mode`, `page_path` and `is_fragment`: whether htmx asked for it.
        """
        session: Session = request.state.session
        zone = self._cookies.zone(request.cookies)
        shared = {
            "viewer": session,
            "csrf_token": csrf.token(session.csrf),
            "theme": self._cookies.preference(request.cookies, "theme"),
            "time_mode": self._cookies.preference(request.cookies, "time"),
            "zone": zone or UTC,
            "zone_key": "" if zone is None else zone.key,
            "keys_mode": self._cookies.preference(request.cookies, "keys"),
            "page_path": request.url.path,
            "is_fragment": is_fragment(request),
        }
        html = self._environment.get_template(template).render({**shared, **context})
        # The header decides whether the response is a whole page or a fragment of it.
        return HTMLResponse(html, status_code=status, headers={"Vary": "HX-Request"})


def is_fragment(request: Request) -> bool:
    """Whether htmx asks for a part of a page."""
    return request.headers.get("hx-request") == "true"


def render(
    request: Request, template: str, /, *, status: int = 200, **context: Any
) -> HTMLResponse:
    """A page, or a fragment of one, by the application's templates."""
    pages: Pages = request.app.state.pages
    return pages.render(request, template, status=status, **context)
