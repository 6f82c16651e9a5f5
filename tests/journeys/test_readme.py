"""The commands of the README and the guides work unchanged against a running mesh.

A `bash` block is executed; a `python` block that begins with a file name is written to that file. A
`console` block is not executed; the sentence before it states its prerequisites.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import Secret

from local.processes import servers
from local.settings import Settings as LocalSettings
from local.supervisor import temporary_stack
from services.drift_repair_agent import main as drift_repair_agent
from services.orchestrator import main as orchestrator
from services.rag_engine import main as rag_engine
from services.schema_observer import main as schema_observer
from shared.config import RagEngineSettings, Settings
from tests import access, processes

REPOSITORY = Path(__file__).parents[2]
IN_ORDER = (
    "README.md",
    "docs/guides/connections.md",
    "docs/guides/sources.md",
    "docs/guides/rollback.md",
    "docs/guides/observation.md",
    "docs/guides/connector-versions.md",
    "docs/guides/webhooks.md",
    "docs/guides/repairs-and-policies.md",
    "docs/guides/credentials.md",
    "docs/guides/import.md",
    "docs/guides/sample-org.md",
    "docs/guides/local-connectors.md",
    "docs/operations.md",
    "docs/security.md",
)
"""The pages with commands, in order, since each uses the results of the preceding ones."""
NOT_RUN = (
    "docs/guides/airbyte-cloud.md",
    "docs/guides/airbyte.md",
    "docs/guides/console.md",
    "docs/guides/events.md",
    "docs/guides/kubernetes.md",
    "docs/guides/real-salesforce.md",
    "docs/guides/restore.md",
    "docs/guides/tables.md",
    "docs/guides/two-meshes.md",
    "docs/troubleshooting.md",
)
"""Pages without a `bash` block; the program of events.md has a separate test."""
WITH_PREREQUISITES = ("docs/guides/", "docs/operations.md", "docs/security.md")
"""Pages on which the prerequisites of each `console` block must be stated."""
RECEIVER_PORT = "9999"
"""The port of the receiver in webhooks.md; replaced by a free one."""

PAGES = {name: (REPOSITORY / name).read_text() for name in (*IN_ORDER, *NOT_RUN)}
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_NEED = re.compile(r"^\*Needs [^*]+\.\*")


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page in one language."""
    return [text for named, text in _BLOCK.findall(PAGES[page]) if named == language]


@pytest.mark.process
@pytest.mark.parametrize(
    "pages",
    [
        pytest.param(("README.md",), id="README"),
        pytest.param(IN_ORDER, id="all pages", marks=pytest.mark.deep),
    ],
)
async def test_every_command_works_in_order(tmp_path: Path, pages: tuple[str, ...]) -> None:
    """Each page runs in a separate shell, all against one mesh."""
    for entry in REPOSITORY.iterdir():
        if entry.name not in (".aam", ".git", ".env"):
            (tmp_path / entry.name).symlink_to(entry)
    port = str(servers.free_port())
    outputs: dict[str, list[str]] = {}

    settings = LocalSettings(sample_api=True)
    async with temporary_stack(settings=settings, keep_logs=tmp_path / "logs") as stack:
        (tmp_path / ".aam").symlink_to(stack.settings.state_dir)
        for page in pages:
            for program in blocks(page, "python"):
                written, _, _ = program.removeprefix("# ").partition("\n")
                assert written.startswith(".aam/"), page
                (tmp_path / written).write_text(program)
            outputs[page] = pasted(page, tmp_path, port=port)
        kept = list((tmp_path / ".aam").glob("*.json"))
        open_to_others = [file.name for file in kept if file.stat().st_mode & 0o077]
    assert open_to_others == []
    check_tour(outputs["README.md"])
    if pages == IN_ORDER:
        assert len(kept) > 3
        check_guides(outputs)


def pasted(page: str, folder: Path, *, port: str) -> list[str]:
    """Run the `bash` blocks of a page in one shell, and return the output of each."""
    marked = [f"{block}\necho; echo '<<<>>>'" for block in blocks(page, "bash")]
    assert marked, page
    run = processes.run(
        ["/bin/bash", "-euo", "pipefail", "-c", "\n".join(marked).replace(RECEIVER_PORT, port)],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        timeout=180,
    )
    assert run.returncode == 0, f"{page}:\n{run.stdout}{run.stderr}"
    assert "urn:aam:problem" not in run.stdout, f"{page}:\n{run.stdout}"
    return [part.strip() for part in run.stdout.split("<<<>>>")][:-1]


def check_tour(printed: list[str]) -> None:
    """Check the output of the README's tour."""
    onboarded, synced, rows, observed, applied, regions, proposed, approved, events = printed
    assert json.loads(onboarded)["status"] == "ACTIVE"
    (job,) = answers(synced)[-1]["items"]
    assert (job["status"], job["records"]) == ("succeeded", 700)
    assert table(rows) == table(shown("README.md", "BillingCity"))
    change, found = answers(observed)
    assert "Region__c" in change["changed"]
    assert [one["severity"] for one in found["changes"]] == ["harmless"]
    (repair,) = json.loads(applied)["items"]
    assert (repair["state"], repair["version_number"]) == ("applied", 2)
    assert table(regions.partition("}")[2]) == table(shown("README.md", "Region__c | count"))
    waiting = answers(proposed)[-1]
    assert (waiting["state"], waiting["changes"][0]["loses"]) == ("proposed", ["Region__c"])
    decided = json.loads(approved)
    assert (decided["state"], decided["version_number"]) == ("applied", 3)
    types = [line.split()[1] for line in events.splitlines()]
    assert types[0] == "connection.onboarded"
    assert types[-1] == "repair.applied"


def answers(printed: str) -> list[Any]:
    """Parse the JSON documents in a block's output, with or without newlines between them."""
    found, at = [], 0
    while at < len(printed):
        document, at = json.JSONDecoder().raw_decode(printed, at)
        found.append(document)
        at += len(printed[at:]) - len(printed[at:].lstrip())
    return found


def shown(page: str, words: str) -> str:
    """Return the output block of a page that contains these words."""
    (output,) = [text for text in blocks(page, "text") if words in text]
    return output


def table(printed: str) -> list[str]:
    """Return the lines of a psql table, without the row count."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith("(")]


def check_guides(outputs: dict[str, list[str]]) -> None:
    """Check the output of the guides for the connection that the tour created."""
    connections = "\n".join(outputs["docs/guides/connections.md"])
    assert '"field_added"' in connections
    assert '"version_number":4' in connections
    assert '"status":"cancelled"' in connections
    assert '"status":"ARCHIVED"' in connections
    assert '"origin":"rollback"' in "\n".join(outputs["docs/guides/rollback.md"])
    assert '"needs_review"' in "\n".join(outputs["docs/guides/observation.md"])
    assert '"delivered":true' in outputs["docs/guides/webhooks.md"][0]
    assert "webhook.test" in outputs["docs/guides/webhooks.md"][0]
    repairs = outputs["docs/guides/repairs-and-policies.md"]
    dry_run, approved = json.loads(repairs[3]), json.loads(repairs[4])
    rejected = answers(repairs[5])[-1]
    assert (dry_run["dry_run"], dry_run["outcome"]) == (True, "applied")
    assert approved["state"] == "applied"
    assert approved["changes"][0]["decision"]["became"] == ["Tier__c"]
    assert rejected["state"] == "rejected"
    assert '"became":["Sales_Region__c"]' in "\n".join(repairs)
    assert '"outcome":"unchanged"' in outputs["docs/guides/credentials.md"][0]
    listed, reported, imported = outputs["docs/guides/import.md"][2:]
    assert '"would_import"' in listed
    assert [one["outcome"] for one in json.loads(reported)["items"]] == ["would_import"]
    assert '"outcome":"imported"' in imported
    tickets, mobile, streams = outputs["docs/guides/local-connectors.md"]
    assert json.loads(tickets)["source_type"] == "Sample Desk"
    assert answers(mobile)[-1]["changes"][0]["path"] == ["requester", "contact", "mobile"]
    assert json.loads(streams)["desk"]["tickets"]["rows"] == 120
    security = "\n".join(outputs["docs/security.md"])
    assert '"owner":"ada@example.com"' in security
    assert "aam_local_" not in security


def test_every_page_with_commands_is_run() -> None:
    """On other pages the prerequisites of the commands are stated."""
    guides = {f"docs/guides/{file.name}" for file in (REPOSITORY / "docs/guides").glob("*.md")}
    assert guides <= PAGES.keys()
    for page in NOT_RUN:
        assert blocks(page, "bash") == [], page
    for page, text in PAGES.items():
        for block in _BLOCK.finditer(text):
            if block[1] == "console" and page.startswith(WITH_PREREQUISITES):
                before = text[: block.start()].rstrip().rpartition("\n\n")[2]
                assert _NEED.match(before), f"{page}: {block[2]}"


@pytest.mark.parametrize("page", NOT_RUN)
def test_routes_of_pages_that_are_not_run_exist(page: str) -> None:
    """Below `$API` and `$CONSOLE/api`, as the console passes them on."""
    table = (REPOSITORY / "services/console/api_routes.txt").read_text().splitlines()
    known = {re.sub(r"{\w+}", "{}", line.split()[-1]) for line in table}
    named = re.findall(r"\$(?:API|CONSOLE/api)(/[^\s\"'?)]+)", PAGES[page])

    assert {re.sub(r"\$\w+", "{}", path) for path in named} <= known


def test_every_link_has_a_target() -> None:
    """Files and headings that are linked to exist."""
    for page in (REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")):
        for link in _LINK.findall(page.read_text()):
            if "://" in link:
                continue
            path, _, heading = link.partition("#")
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), f"{page}: {link}"
            if heading:
                assert heading in headings(there), f"{page}: {link}"


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub generates them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_named_target_and_variable_exists() -> None:
    text = "\n".join(PAGES.values())
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|\$ |^)make ([a-z-]+)", text, re.MULTILINE))
    assert {"up", "demo", "test", "psql"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    known = (REPOSITORY / ".env.example").read_text()
    known += (REPOSITORY / "docker-compose.yml").read_text()
    known += "\n".join(f"AAM_{name.upper()}" for name in LocalSettings.model_fields)
    known += "AAM_DEEP COMPOSE_PROFILES"  # of the tests, and of compose
    variables = set(re.findall(r"`([A-Z]+_[A-Z_]+)`", text))
    assert variables
    for variable in variables:
        is_of_credential = re.match("CREDENTIAL_[A-Z0-9_]+__", variable)
        assert is_of_credential or variable in known, variable


def test_second_mesh_shares_nothing_with_the_first() -> None:
    """Its folder and all its ports differ from the defaults."""
    (given,) = blocks("docs/guides/two-meshes.md", "sh")
    variables = dict(line.removeprefix("export ").split("=") for line in given.splitlines())
    first = LocalSettings.model_construct()
    second = LocalSettings.model_validate(
        {name.removeprefix("AAM_").lower(): value for name, value in variables.items()}
    )
    assert second.state_dir != first.state_dir
    assert second.connectors_dir == first.connectors_dir
    ports = [getattr(mesh, name) for mesh in (first, second) for name in first.port_names()]
    assert len(set(ports)) == len(ports) == 2 * len(first.port_names())


def test_every_endpoint_has_a_curl_example() -> None:
    """On any page, with any ids; the addresses are those of `.aam/env`."""
    registry = Secret("postgresql://nobody:x@127.0.0.1:1/aam")
    settings = Settings(supabase_db_url=registry, _env_file=None, **access.service_keys())
    suggesting = RagEngineSettings(
        supabase_db_url=registry, _env_file=None, **access.service_keys()
    )
    apps = {
        "ORCHESTRATOR": orchestrator.build(settings),
        "DRIFT_REPAIR_AGENT": drift_repair_agent.build(settings),
        "SCHEMA_OBSERVER": schema_observer.build(settings),
        "RAG_ENGINE": rag_engine.build(suggesting),
    }
    shared = ("/health", "/ready", "/whoami", "/operations", "/operations/{operation_id}")
    lines = {line for text in PAGES.values() for line in text.splitlines() if "curl " in line}
    missing = []
    for address, app in apps.items():
        for path, methods in app.openapi()["paths"].items():
            if path in shared and address != "ORCHESTRATOR":
                continue
            pattern = re.escape(f"${address}") + re.sub(r"\{[a-z_]+\}", r"[$%\\w-]+", path)
            pattern += r"(?![/\w$])"
            for method in methods:
                verb = rf"-X {method.upper()} " if method != "get" else r"(?!.*-X )"
                key = "" if path in ("/ready", "/about") else r"-H @\.aam/auth "
                wanted = re.compile(rf"curl -sS {key}{verb}\"?{pattern}")
                if not any(wanted.search(line) for line in lines) and path != "/health":
                    missing.append(f"{method.upper()} {address}{path}")
    assert missing == []
