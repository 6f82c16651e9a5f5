"""Preferences of a browser: theme, times and keys, in cookies that hold nothing else."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from services.console.cookies import KEYS, THEMES, TIMES, ZONE_COOKIE, Cookies
from services.console.forms import SubmittedForm
from services.console.rendering import render
from services.console.text import zone_names, zone_of

router = APIRouter()


@router.get("/preferences")
async def preferences(request: Request) -> Response:
    """Show the form."""
    return _form(request)


@router.post("/preferences")
async def choose(request: Request, form: SubmittedForm) -> Response:
    """Store the chosen ones, and show the form again."""
    cookies: Cookies = request.app.state.cookies
    zone = form.text("zone")
    if zone and zone_of(zone) is None:
        return _form(request, zone=zone, error="This time zone is not known here.")
    response = RedirectResponse("/preferences", status_code=303)
    if form.text("theme") in THEMES:
        stored = cookies.set_preference("theme", form.text("theme"))
        response.headers.append("set-cookie", stored)
    if form.text("time") in TIMES:
        response.headers.append("set-cookie", cookies.set_preference("time", form.text("time")))
    if zone:
        response.headers.append("set-cookie", cookies.set_zone(zone))
    if form.text("keys") in KEYS:
        response.headers.append("set-cookie", cookies.set_preference("keys", form.text("keys")))
    return response


def _form(request: Request, *, zone: str | None = None, error: str = "") -> Response:
    stored = request.cookies.get(ZONE_COOKIE, "")
    return render(
        request,
        "preferences.j2",
        status=422 if error else 200,
        themes=THEMES,
        times=TIMES,
        given_zone=stored if zone is None else zone,
        zones=zone_names(),
        error=error,
    )
