"""`make check`: scans AAM's code by its own semgrep rules, after each has found what is planted.

Semgrep is installed in an environment of its own, named as the argument. It sends no metrics and
looks for no newer version.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "tests/semgrep/rules.yml"
PLANTED = ROOT / "tests/semgrep/planted.yml"
SCANNED = ("shared", "services", "local", "migrations")


def findings(semgrep: str, root: Path) -> list[tuple[str, str, int]]:
    """What the rules find below `root`: rule, path and line.

    Raises:
        SystemExit: semgrep could not read a rule or a file.
    """
    command = [semgrep, "scan", "--metrics=off", "--disable-version-check", "--json", "--quiet"]
    command += ["--no-git-ignore", "--config", str(RULES), *SCANNED]
    run = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "SEMGREP_SEND_METRICS": "off", "SEMGREP_ENABLE_VERSION_CHECK": "0"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if run.returncode:
        raise SystemExit(f"semgrep ended with {run.returncode}: {run.stderr or run.stdout}")
    report = json.loads(run.stdout)
    if report["errors"]:
        raise SystemExit(f"semgrep could not read everything: {json.dumps(report['errors'])}")
    if not report["paths"]["scanned"]:
        raise SystemExit(f"semgrep found no file in {root}")
    return [
        (one["check_id"].rpartition(".")[2], one["path"], one["start"]["line"])
        for one in report["results"]
    ]


def planted(folder: Path) -> dict[str, tuple[str, bool]]:
    """Write what is planted; for each file its rule, and whether that must find something."""
    # The rules' paths begin at the repository's root, so it is one.
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    for name in SCANNED:
        (folder / name).mkdir()
    files: dict[str, tuple[str, bool]] = {}
    of_all: dict[str, dict[str, list[str]]] = yaml.safe_load(PLANTED.read_text())
    for rule, of in of_all.items():
        for kind in ("found", "left"):
            for number, code in enumerate(of[kind]):
                path = f"shared/{rule.replace('-', '_')}_{kind}_{number}.py"
                (folder / path).write_text(code)
                files[path] = (rule, kind == "found")
    return files


def blind(semgrep: str) -> Iterator[str]:
    """What the rules do not find though it is planted, and what they find though it is not."""
    with tempfile.TemporaryDirectory() as name:
        files = planted(Path(name))
        found: dict[str, set[str]] = defaultdict(set)
        for rule, path, _ in findings(semgrep, Path(name)):
            found[path].add(rule)
    for path, (rule, must) in files.items():
        if (rule in found[path]) is not must:
            sees = "does not find" if must else "finds"
            yield f"{rule} {sees} what stands in planted.yml: {path}"
    of_rules: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["rules"]
    for rule in {one["id"] for one in of_rules} ^ {rule for rule, _ in files.values()}:
        yield f"{rule} is only in one of rules.yml and planted.yml"


def main(semgrep: str) -> int:
    """Say everything that is wrong; 1 where there is anything."""
    wrong = [*blind(semgrep)]
    wrong += [f"{path}:{line}: {rule}" for rule, path, line in findings(semgrep, ROOT)]
    sys.stdout.writelines(f"{line}\n" for line in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(str(Path(sys.argv[1]).resolve())))
