"""The secret scanner finds planted secrets in every encoding, and a run with a leak fails."""

from __future__ import annotations

import base64
import gzip
import json
import os
import sys
import textwrap
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.http.authentication import DOCS
from tests import leaks, processes
from tests.integration.conftest import REPOSITORY, Mesh, mesh, meshes, repairs
from tests.leaks import Outputs, Scanner

__all__ = ["mesh", "meshes", "repairs"]

SECRET = "q7Rk2ZpXw9Lb-4TnVs8YdGc1M"
OF_HEX = "00c1f2e3d4b5a6978899aabbccddeeff0123456789abcdef"
KEPT = "AAMCANARY-"

FORMS: dict[str, Callable[[str], bytes]] = {
    "plain": lambda secret: secret.encode(),
    "in JSON": lambda secret: json.dumps({"refresh_token": secret}).encode(),
    "in a URL": lambda secret: urllib.parse.quote(f"https://x/?token={secret}").encode(),
    "cut off at its end": lambda secret: secret[:12].encode() + b"...",
    "cut off at its start": lambda secret: b"..." + secret[-12:].encode(),
    "base64": lambda secret: base64.b64encode(f"{KEPT}{secret}".encode()),
    "base64, a byte on": lambda secret: base64.b64encode(f"{KEPT}x{secret}".encode()),
    "base64, two bytes on": lambda secret: base64.b64encode(f"{KEPT}xx{secret}".encode()),
    "base64 for URLs": lambda secret: base64.urlsafe_b64encode(f"a:{secret}".encode()),
    "base64 in lines": lambda secret: base64.encodebytes(f"{'x' * 20}{secret}".encode() * 3),
    "hexadecimal": lambda secret: secret.encode().hex().encode(),
    "HEXADECIMAL": lambda secret: secret.encode().hex().upper().encode(),
    "bytea": lambda secret: b"\\x" + f"{KEPT}{secret}".encode().hex().encode(),
    "every byte percent-encoded": lambda secret: b"".join(b"%%%02X" % b for b in secret.encode()),
    "every character escaped": lambda secret: "".join(
        f"\\u{ord(char):04x}" for char in secret
    ).encode(),
    "reversed": lambda secret: secret[::-1].encode(),
    "gzip": lambda secret: b"\0\1" + gzip.compress(f"x{secret}x".encode()),
    "gzip of base64": lambda secret: gzip.compress(base64.b64encode(secret.encode())),
}


@pytest.mark.parametrize("secret", [SECRET, OF_HEX], ids=["letters", "hexadecimal"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("offset", [0, 3, 1000])
def test_planted_secret_is_found(form: str, secret: str, offset: int) -> None:
    """At any offset in the output."""
    scanner = Scanner()
    scanner.know("the planted one", secret)

    text = b"." * offset + FORMS[form](secret) + b"." * 13

    assert {kind for _, kind, _ in scanner.find(text)} == {"the planted one"}


@pytest.mark.parametrize("form", FORMS)
def test_similar_text_is_not_reported(form: str) -> None:
    scanner = Scanner()
    scanner.know("the planted one", SECRET)
    scanner.know("of hexadecimal digits", OF_HEX)

    assert list(scanner.find(FORMS[form](SECRET.swapcase()))) == []


def test_short_output_is_scanned() -> None:
    scanner = Scanner()
    scanner.know("the planted one", SECRET)

    assert [list(scanner.find(b"x" * length)) for length in range(9)] == [[]] * 9


def test_report_names_the_output_and_the_test() -> None:
    """Several outputs are scanned together; the report does not contain the secret."""
    outputs = Outputs()
    outputs.know("the planted one", SECRET)
    outputs.test = "test_before"
    outputs.add("a log", "nothing")
    outputs.test = "test_that_leaks"
    outputs.add("an answer", f"the token is {SECRET}!")
    outputs.test = "test_after"
    outputs.add("a log", "nothing else")

    outputs.scan()

    assert {(find.output, find.test) for find in outputs.finds} == {
        ("an answer", "test_that_leaks")
    }
    report = "\n".join(map(str, outputs.finds))
    assert "the planted one, its start, in an answer: test_that_leaks" in report
    assert SECRET[:8] not in report
    assert SECRET[-8:] not in report


PLANTED = """
    import base64, logging, subprocess, sys, time
    from pathlib import Path
    import asyncpg
    import httpx
    from local.processes import servers
    from shared.auth.scopes import Scope, may
    from shared.http.app import create_app
    from shared.http.authentication import Access
    from tests import access, leaks

    SECRET = leaks.canary("a planted secret")

    def test_prints():
        print("token:", SECRET[:19])

    def test_prints_as_basic_authentication(capsys):
        print(base64.b64encode(f"user:{SECRET}".encode()).decode(), file=sys.stderr)
        capsys.readouterr()

    def test_logs(caplog):
        caplog.set_level("DEBUG")
        logging.getLogger("any").debug("%s", {"refresh_token": SECRET})

    def test_names_it_in_a_command_line():
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)", SECRET]):
            time.sleep(1)

    def test_prints_the_key_of_a_service():
        folder = access.service_keys()["service_private_key_dir"]
        print((folder / "orchestrator.pem").read_text().encode().hex())

    def test_is_clean():
        print("nothing")

    async def test_stores(server_dir):
        with servers.start_postgres(server_dir / "own") as server:
            connection = await asyncpg.connect(server.url)
            await connection.execute("CREATE TABLE kept (it bytea)")
            await connection.execute("INSERT INTO kept VALUES ($1)", SECRET.encode())
            await leaks.add_rows(connection)
            await connection.close()

    async def test_answers():
        app = create_app(service="x", description="x", access=Access([access.Everybody()]))

        @app.get("/secret", dependencies=[may(Scope.ADMIN)])
        async def secret() -> str:
            return SECRET[::-1]

        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://aam", headers=access.HEADERS
        ) as client:
            assert (await client.get("/secret")).status_code == 200
"""


@pytest.mark.deep
@pytest.mark.parametrize(
    "workers",
    [
        pytest.param([], id="one process"),
        pytest.param(["-n", "2"], id="two workers", marks=pytest.mark.deep),
    ],
)
def test_run_with_a_leak_fails(tmp_path: Path, workers: list[str]) -> None:
    """A secret planted in each kind of output is reported with its test."""
    planted = tmp_path / "test_planted.py"
    planted.write_text(textwrap.dedent(PLANTED))
    run = processes.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest"),
            *("-p", "no:schemathesis", *workers),
            *("-c", str(REPOSITORY / "pyproject.toml"), "--rootdir", str(tmp_path), str(planted)),
        ],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=120,
    )

    leaked = [line for line in run.stdout.splitlines() if line.startswith("LEAKED ")]
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    assert "8 passed" in run.stdout
    for test, output, form in [
        ("test_prints", "Captured stdout call", "its start"),
        ("test_prints_as_basic_authentication", "captured output", "in base64"),
        ("test_logs", "Captured log call", "its end"),
        ("test_names_it_in_a_command_line", "a command line", "its start"),
        ("test_prints_the_key_of_a_service", "Captured stdout call", "in hexadecimal"),
        ("test_stores", "the rows of kept", "in hexadecimal"),
        ("test_answers", "the response to GET /secret", "reversed"),
    ]:
        assert any(
            line.endswith(f"in {output}: test_planted.py::{test}") and form in line
            for line in leaked
        ), (test, leaked)
    assert not any("test_is_clean" in line for line in leaked)
    assert "AAMCANARY" not in run.stdout


@pytest.mark.process
async def test_descriptions_and_pages_have_no_secret(mesh: Mesh) -> None:
    """They are scanned at the end of the run, like every response."""
    clients = [mesh.orchestrator, mesh.drift_repair_agent, mesh.schema_observer, mesh.auth_broker]
    before = leaks.collected()
    for client in clients:
        for path in (*sorted(DOCS), "/health", "/ready"):
            assert (await client.get(path)).status_code == 200
    assert leaks.collected() > before
