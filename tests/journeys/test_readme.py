"""The README's commands work by copy and paste against a running mesh."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from pydantic import Secret

from local.stack import throw_away
from services.drift_repair_agent import main as drift_repair_agent
from services.orchestrator import main as orchestrator
from services.rag_engine import main as rag_engine
from services.schema_observer import main as schema_observer
from shared.config import RagEngineSettings, Settings
from tests import access

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()


async def test_every_command_works_in_order(tmp_path: Path) -> None:
    """Each `bash` block of "Use it", in one shell, as a person would paste them."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 18
    marked = [f"{block}\necho; echo '<<<>>>'" for block in blocks]

    async with throw_away(keep_logs=tmp_path / "logs") as stack:
        (tmp_path / ".aam").symlink_to(stack.settings.state_dir)
        run = subprocess.run(  # noqa: ASYNC221 (nothing else is to run meanwhile)
            ["bash", "-euo", "pipefail", "-c", "\n".join(marked)],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        written = list((tmp_path / ".aam").glob("*.json"))
        open_to_others = [file.name for file in written if file.stat().st_mode & 0o077]
    assert run.returncode == 0, run.stdout + run.stderr
    assert len(written) > 3
    assert open_to_others == []
    assert "urn:aam:problem" not in run.stdout
    told = [part.strip() for part in run.stdout.split("<<<>>>")]
    onboarded, _sync, jobs, grown, looked, healed, asked, approved, applied, restored = told[:10]
    _policy, suggested, _webhooks, seen, drifted, begun, keys, _gone = told[10:18]
    assert json.loads(onboarded)["status"] == "ACTIVE"
    (job,) = json.loads(jobs)["items"]
    assert (job["status"], job["records"]) == ("succeeded", 700)
    assert "Region__c" in grown
    (change,) = json.loads(looked)["changes"]
    assert (change["kind"], change["severity"]) == ("field_added", "harmless")
    (repair,) = json.loads(healed)["items"]
    assert (repair["state"], repair["version_number"]) == ("applied", 2)
    proposed = json.loads("{" + asked.partition("}{")[2])
    assert (proposed["state"], proposed["changes"][0]["loses"]) == ("proposed", ["Region__c"])
    decided = json.loads(approved)
    assert (decided["state"], decided["version_number"]) == ("applied", 3)
    assert json.loads(applied)["version_number"] == 4
    rolled_back = json.loads(restored)
    assert (rolled_back["state"], rolled_back["version_number"]) == ("applied", 5)
    assert '"became":["Sales_Region__c"]' in suggested
    assert '"field_added"' in seen
    assert "needs_review" in drifted
    assert '"owner":"ada@example.com"' in keys.replace(" ", "")
    assert "aam_" not in keys
    kinds = ["apply", "apply", "apply", "apply", "sync", "onboard"]
    assert [one["kind"] for one in json.loads(begun)["items"] if one["kind"] != "rollback"] == kinds


def test_every_target_and_variable_it_names_exists() -> None:
    """No `make` target, variable or file that is not there."""
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|\$ )make ([a-z-]+)", README))
    assert {"up", "demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    example = (REPOSITORY / ".env.example").read_text()
    variables = set(re.findall(r"`([A-Z]+_[A-Z_]+)`", README)) - {"AAM_AIRBYTE_PORT"}
    assert variables
    for variable in variables:
        assert variable in example, variable


def test_every_endpoint_has_its_curl_line() -> None:
    """In the README, whatever the ids in it are called; the addresses are those of `.aam/env`."""
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
    shared = ("/health", "/ready", "/operations", "/operations/{operation_id}")
    lines = {line for line in README.splitlines() if "curl " in line}
    missing = []
    for address, app in apps.items():
        for path, methods in app.openapi()["paths"].items():
            if path in shared and address != "ORCHESTRATOR":
                continue
            pattern = re.escape(f"${address}") + re.sub(r"\{[a-z_]+\}", r"[$\\w-]+", path)
            pattern += r"(?![/\w$])"
            for method in methods:
                verb = rf"-X {method.upper()} " if method != "get" else r"(?!.*-X )"
                key = "" if path == "/ready" else r"-H @\.aam/auth "
                wanted = re.compile(rf"curl -sS {key}{verb}\"?{pattern}")
                if not any(wanted.search(line) for line in lines) and path != "/health":
                    missing.append(f"{method.upper()} {address}{path}")
    assert missing == []
