"""The commands of the sample org, as a person types them, against a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from local.sample_org.__main__ import app
from tests import processes

pytestmark = pytest.mark.process

COMMAND = [sys.executable, "-m", "local.sample_org"]


class Started:
    """A served org and the environment in which the other commands find it."""

    def __init__(self, state_dir: Path, *options: str, port: int = 0) -> None:
        self.environment = {
            **os.environ,
            "SAMPLE_ORG_STATE_DIR": str(state_dir),
            "SAMPLE_ORG_PORT": str(port),
            "SAMPLE_ORG_PROXY_PORT": "0",
        }
        self.process = subprocess.Popen(
            [*COMMAND, "serve", *options],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ready = self._wait()
        self.environment["SAMPLE_ORG_PORT"] = self.ready["url"].rsplit(":", 1)[1]

    def run(self, *words: str) -> Result:
        """Type a command and wait for it; in this process, since starting one takes a second."""
        return CliRunner().invoke(app, words, env=self.environment)

    def stop(self) -> int:
        """Interrupt the server as Ctrl-C does, and wait; answers its exit code."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=20)
        if self.process.stdout:
            self.process.stdout.close()
        return code

    def _wait(self) -> dict[str, str]:
        assert self.process.stdout is not None
        deadline = time.monotonic() + 60
        for line in self.process.stdout:
            event: dict[str, str] = json.loads(line)
            if event["event"] == "sample_org_ready":
                return event
            if time.monotonic() > deadline:
                break
        pytest.fail(f"The sample org did not start: exit code {self.process.poll()}.")


def serve_in_vain(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Start a server that has to give up by itself."""
    return processes.run(
        [*COMMAND, "serve"],
        env=environment,
        timeout=60,
    )


@pytest.fixture(scope="module")
def org(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """One org for all the commands here."""
    started = Started(tmp_path_factory.mktemp("org"), "--fail", "job:500:2", "--latency-ms", "1")
    yield started
    assert started.stop() == 0


@pytest.mark.parametrize(
    "words, line",
    [
        (
            "add-field Account Region__c --type string --value EMEA --value APAC",
            "Account has a new field Region__c (string); 200 rows got a value.",
        ),
        (
            "add-field Lead Score__c --type double --value 1.5",
            "Lead has a new field Score__c (double); 300 rows got a value.",
        ),
        (
            "rename-field Account SLA__c Tier__c",
            "The field SLA__c of Account is now named Tier__c.",
        ),
        (
            "retype-field Contact Level__c string",
            "Level__c of Contact is now of type string, no longer picklist.",
        ),
        ("drop-field Case Product__c", "Case no longer has the field Product__c."),
        ("add-object Invoice__c --rows 3", "The org has a new object Invoice__c with 3 rows."),
        ("touch Event --count 4", "4 rows of Event have a new SystemModstamp."),
        ("expire-sessions", "0 sessions are closed."),
    ],
)
def test_each_command_prints_the_change(org: Started, words: str, line: str) -> None:
    """In one line."""
    done = org.run(*words.split())

    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{line}\n", "")


@pytest.mark.parametrize(
    "first, first_line, second, second_line",
    [
        (
            "hide-object Campaign",
            "Campaign is hidden from the connected user.",
            "show-object Campaign",
            "Campaign is visible to the connected user again.",
        ),
        (
            "forbid-field Lead Company",
            "Queries reject the field Company of Lead, which is still described.",
            "allow-field Lead Company",
            "Queries can read the field Company of Lead again.",
        ),
    ],
)
def test_every_change_can_be_reverted(
    org: Started, first: str, first_line: str, second: str, second_line: str
) -> None:
    """Each way in one line."""
    for words, line in ((first, first_line), (second, second_line)):
        done = org.run(*words.split())
        assert (done.exit_code, done.stdout, done.stderr) == (0, f"{line}\n", "")


def test_status_and_settings_show_the_state(org: Started) -> None:
    """The options of serve, the changed settings, and the objects."""
    changed = org.run("settings", "--page-size", "500", "--rotate", "--fail", "query:503")
    assert changed.exit_code == 0
    shown = org.run("status").stdout

    assert '"page_size": 500' in shown
    assert '"latency_ms": 1' in shown
    assert '"endpoint": "query", "status": 503, "times": null' in shown
    assert "Account " in shown

    healed = org.run("settings", "--heal", "--no-rotate", "--latency-ms", "0").stdout
    assert '"failures": []' in healed


@pytest.mark.parametrize(
    "words, line",
    [
        ("drop-field Account Id", "Id is a system field: no object can be without it.\n"),
        ("drop-field Nothing__c X__c", "The org has no object Nothing__c.\n"),
    ],
)
def test_refusal_is_one_line_and_exit_code_1(org: Started, words: str, line: str) -> None:
    """On standard error."""
    done = org.run(*words.split())

    assert done.exit_code == 1
    assert done.stderr == line


def test_invalid_option_is_explained(org: Started) -> None:
    """Before anything is sent."""
    done = org.run("settings", "--fail", "nonsense")

    assert done.exit_code == 2
    assert "ENDPOINT:STATUS" in done.stderr


@pytest.mark.parametrize(
    "setting, explanation",
    [
        ({"SAMPLE_ORG_PORT": "secret-looking"}, "SAMPLE_ORG_PORT: Input should be a valid integer"),
        ({"SAMPLE_ORG_OBJECTS": "-1"}, "SAMPLE_ORG_OBJECTS: Input should be greater than or equal"),
    ],
)
def test_invalid_setting_is_named_without_its_value(
    setting: dict[str, str], explanation: str
) -> None:
    """In one line, before anything starts."""
    done = serve_in_vain(os.environ | setting)

    assert done.returncode == 1
    assert done.stderr.startswith(explanation)
    assert "secret-looking" not in done.stderr


def test_damaged_journal_is_not_overwritten(tmp_path: Path) -> None:
    """The sentence names the file, which stays as it was."""
    (tmp_path / "org.json").write_text("{")
    done = serve_in_vain(os.environ | {"SAMPLE_ORG_STATE_DIR": str(tmp_path)})

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "org.json cannot be read" in done.stderr
    assert (tmp_path / "org.json").read_text() == "{"


def test_unreachable_org_names_the_port(org: Started, tmp_path: Path) -> None:
    """A taken port and an unanswered one are each one clear line."""
    taken = serve_in_vain(org.environment)
    assert taken.returncode == 1
    assert f"SAMPLE_ORG_PORT {org.environment['SAMPLE_ORG_PORT']}" in taken.stderr

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        done = CliRunner().invoke(app, ["status"], env=org.environment | {"SAMPLE_ORG_PORT": port})
    assert done.exit_code == 1
    assert done.stderr == f"No sample org responds on port {port} (SAMPLE_ORG_PORT).\n"
