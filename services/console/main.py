"""The console's application: pages for people, and the services' routes under `/api/`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.console import csrf, error_pages, health, pages, proxy
from services.console.accepted_callers import AcceptedCallers
from services.console.api import Clients
from services.console.assets import Assets
from services.console.cookies import Cookies
from services.console.destination_names import DestinationNames
from services.console.error_pages import ErrorPages
from services.console.gate import Gate
from services.console.live_feed import LiveFeed, signer_of_console
from services.console.oidc_login import OidcLogin
from services.console.pages.live import OpenStreams
from services.console.proxy import RouteTable
from services.console.rendering import Pages
from services.console.security_headers import SecurityHeaders
from services.console.session import Sessions
from services.console.settings import ConsoleSettings
from shared.auth.failed_attempts import Guesses
from shared.config import load
from shared.http.request_log import RequestLog
from shared.http.shutdown import for_server, stop_on_signal
from shared.http.single_flight import SingleFlight
from shared.observability import logs, tracing


def build(settings: ConsoleSettings) -> FastAPI:
    """Build the application for these settings."""
    logs.set_up("console", level=settings.log_level)
    tracing.set_up("console", settings)
    assets = Assets()
    cookies = Cookies(is_secure=settings.console_url.scheme == "https")
    sessions = Sessions(
        settings.console_session_keys,
        idle=settings.console_session_idle,
        lifetime=settings.console_session_lifetime,
    )
    signer = signer_of_console(settings.service_private_key_dir)
    clients = Clients(settings, signer)
    live_feed = LiveFeed(clients, signer)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        with stop_on_signal(live_feed.stop):
            async with live_feed.running():
                yield
        await clients.close()

    app = FastAPI(
        title="AAM console",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.settings = settings
    app.state.clients = clients
    app.state.readiness = SingleFlight[dict[str, str]]()
    app.state.cookies = cookies
    app.state.live_feed = live_feed
    app.state.open_streams = OpenStreams()
    app.state.accepted_callers = AcceptedCallers(clients)
    app.state.destination_names = DestinationNames()
    app.state.sessions = sessions
    app.state.oidc_login = OidcLogin(settings) if settings.has_oidc_login else None
    app.state.guesses = Guesses(settings.failed_keys_per_minute)
    app.state.pages = Pages(
        assets,
        cookies,
        installation=settings.console_name,
        airbyte_ui=str(settings.airbyte_ui_url or "").rstrip("/"),
    )
    app.state.api_routes = RouteTable.installed()
    for router in (health.router, assets.router(), proxy.router, *pages.ROUTERS):
        app.include_router(router)
    error_pages.handle_http_errors(app)
    # The middleware added last is the outermost.
    app.add_middleware(
        Gate,
        sessions=sessions,
        cookies=cookies,
        origins=csrf.origins_of(str(settings.console_url)),
        body_deadline=settings.body_deadline,
    )
    app.add_middleware(ErrorPages, cookies=cookies, has_oidc_login=settings.has_oidc_login)
    app.add_middleware(RequestLog, service="console")
    app.add_middleware(SecurityHeaders, is_secure=cookies.is_secure)
    return app


def __getattr__(name: str) -> FastAPI:
    """Build `app` on first access, so that importing this module does not read the environment."""
    if name != "app":
        raise AttributeError(name)
    return for_server(build(load(ConsoleSettings)))
