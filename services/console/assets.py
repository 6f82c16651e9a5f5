"""Static files: own styles and scripts, and htmx, served under an address that names their content.

htmx is one file of a pinned package, which the installation puts beside the interpreter; the
console does not start with another one.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import Response

from services.console.problems import PageProblem

HTMX_SHA256: Final = "71ea67185bfa8c98c39d31717c6fce5d852370fcdfd129db4543774d3145c0de"
"""htmx 2.0.10, as in django-htmx 1.29.0: `static/django_htmx/htmx-2.min.js`."""
HTMX_FILE: Final = Path(sys.prefix) / "share" / "aam" / "htmx-2.min.js"
_OWN: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_FOR_GOOD: Final = "public, max-age=31536000, immutable"


class Assets:
    """The files in memory, and their address."""

    def __init__(self, htmx: Path = HTMX_FILE, own: Path = _OWN) -> None:
        """Read the files.

        Raises:
            SystemExit: htmx is missing, or not the pinned file.
        """
        self._files = {
            path.name: path.read_bytes() for path in sorted(own.iterdir()) if path.suffix in _TYPES
        }
        self._files["htmx.js"] = _pinned(htmx)
        whole = hashlib.sha256()
        for name, content in sorted(self._files.items()):
            whole.update(f"{name}:{len(content)}:".encode() + content)
        self.version = whole.hexdigest()[:16]

    def url(self, name: str) -> str:
        """The address of a file.

        Raises:
            KeyError: there is no such file.
        """
        if name not in self._files:
            raise KeyError(name)
        return f"/static/{self.version}/{name}"

    def router(self) -> APIRouter:
        """The route of the files."""
        router = APIRouter()

        @router.get("/static/{version}/{name}")
        async def file(version: str, name: str) -> Response:
            """Serve a file; browsers store it for good under the address of its own version."""
            if name not in self._files:
                raise PageProblem(404, "not_found", "There is no such file.")
            # While replicas are replaced, a page may name the files of another version.
            is_own = version == self.version
            return Response(
                self._files[name],
                media_type=_TYPES[Path(name).suffix],
                headers={"Cache-Control": _FOR_GOOD if is_own else "no-cache"},
            )

        return router


def _pinned(file: Path) -> bytes:
    try:
        content = file.read_bytes()
    except OSError:
        raise SystemExit(f"{file} is missing: `make up` and the image install it") from None
    if hashlib.sha256(content).hexdigest() != HTMX_SHA256:
        raise SystemExit(f"{file} is not htmx 2.0.10 with the pinned sha256")
    return content
