"""Preferences of a browser: theme and time zone, in cookies that hold nothing else."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from services.console.cookies import THEMES, TIMES, Cookies
from services.console.forms import SubmittedForm
from services.console.rendering import render

router = APIRouter()


@router.get("/preferences")
async def preferences(request: Request) -> Response:
    """Show the form."""
    return render(request, "preferences.j2", themes=THEMES, times=TIMES)


@router.post("/preferences")
async def choose(request: Request, form: SubmittedForm) -> Response:
    """Store the chosen ones, and show the form again."""
    cookies: Cookies = request.app.state.cookies
    response = RedirectResponse("/preferences", status_code=303)
    if form.text("theme") in THEMES:
        stored = cookies.set_preference("theme", form.text("theme"))
        response.headers.append("set-cookie", stored)
    if form.text("time") in TIMES:
        response.headers.append("set-cookie", cookies.set_preference("time", form.text("time")))
    return response
