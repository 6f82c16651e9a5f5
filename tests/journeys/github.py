"""A stub of GitHub's API with the routes that its connector needs for three streams.

The connector reaches it through a CONNECT proxy that redirects api.github.com, since older releases
have that host hard-coded.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from local.sample_org.connect_proxy import Authority, Proxy

Json = dict[str, Any]
OWNER, NAME = "octo", "mesh"
REPOSITORY = f"{OWNER}/{NAME}"
ISSUES, LABELS, RELEASES = 7, 4, 3
USER: Json = {"id": 1, "node_id": "U_1", "login": "ada", "type": "User", "site_admin": False}


def _time(day: int) -> str:
    return f"2026-02-{day:02}T00:00:00Z"


def _issues(since: str) -> list[Json]:
    found: list[Json] = [
        {
            "id": 100 + number,
            "node_id": f"I_{number}",
            "number": number,
            "title": f"Issue {number}",
            "state": "open",
            "user": USER,
            "labels": [],
            "assignees": [],
            "comments": 0,
            "locked": False,
            "created_at": _time(number),
            "updated_at": _time(number),
            "body": "It does not work.",
        }
        for number in range(1, ISSUES + 1)
    ]
    return [issue for issue in found if issue["updated_at"] >= since]


def _labels() -> list[Json]:
    return [
        {"id": number, "node_id": f"L_{number}", "name": f"label {number}", "color": "aabbcc"}
        for number in range(1, LABELS + 1)
    ]


def _release(number: int) -> Json:
    return {
        "id": number,
        "node_id": f"R_{number}",
        "name": f"Release {number}",
        "tag_name": f"v{number}",
        "created_at": _time(number),
        "published_at": _time(number),
        "draft": False,
        "prerelease": False,
        "body": "Notes.",
        "author": None,
    }


def _answer(path: str, query: dict[str, list[str]]) -> Any:
    limit = {"limit": 5000, "remaining": 4999, "reset": 4_000_000_000, "used": 1}
    repository = {
        "id": 9,
        "node_id": "R_9",
        "name": NAME,
        "full_name": REPOSITORY,
        "default_branch": "main",
        "owner": {**USER, "login": OWNER, "type": "Organization"},
        "organization": {"login": OWNER, "id": 2, "type": "Organization"},
    }
    answers: dict[str, Any] = {
        "/rate_limit": {"resources": {"core": limit, "graphql": limit}, "rate": limit},
        f"/repos/{REPOSITORY}": repository,
        f"/orgs/{OWNER}": {"login": OWNER, "id": 2, "type": "Organization"},
        f"/orgs/{OWNER}/repos": [repository],
        f"/repos/{REPOSITORY}/labels": _labels(),
        f"/repos/{REPOSITORY}/issues": _issues(query.get("since", [""])[0]),
        f"/repos/{REPOSITORY}/releases": [
            {**_release(number), "assets": []} for number in range(1, RELEASES + 1)
        ],
    }
    return answers.get(path)


def _graphql(query: str) -> Json:
    assert "releases(" in query, query[:200]
    nodes = [
        {
            **_release(number),
            "updated_at": _time(number + 1),
            "assets": {"nodes": [], "pageInfo": {"hasNextPage": False}},
            "reaction_groups": [],
            "mentions_connection": {"totalCount": 0},
            "tagCommit": {"target_commitish": "abc"},
        }
        for number in range(1, RELEASES + 1)
    ]
    page = {"hasNextPage": False, "endCursor": None}
    return {"data": {"repository": {"releases": {"nodes": nodes, "pageInfo": page}}}}


@asynccontextmanager
async def running(*, token: str, folder: Path) -> AsyncIterator[dict[str, str]]:
    """Serve the stub to callers with `token`; yield the environment that a connector needs."""
    authority = Authority(folder)
    with _routes(token) as port:
        proxy = Proxy(authority, port=port, hosts=re.compile(r"api\.github\.com"))
        async with await asyncio.start_server(proxy.accept, "127.0.0.1", 0) as door:
            (address,) = [one.getsockname() for one in door.sockets]
            yield {
                "HTTPS_PROXY": f"http://127.0.0.1:{address[1]}",
                "REQUESTS_CA_BUNDLE": str(authority.bundle.resolve()),
            }


@contextmanager
def _routes(token: str) -> Iterator[int]:
    """Serve the routes and yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            self._respond(_answer(address.path.rstrip("/"), parse_qs(address.query)))

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            body = json.loads(self.rfile.read(length) or b"{}")
            is_query = urlsplit(self.path).path.rstrip("/") == "/graphql"
            self._respond(_graphql(body["query"]) if is_query else None)

        def _respond(self, content: Any) -> None:
            status = 200
            if self.headers.get("Authorization", "").partition(" ")[2] != token:
                status, content = 401, {"message": "Bad credentials"}
            elif content is None:
                status, content = 404, {"message": "Not Found"}
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Suppress the access log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
