"""What a connector logs is kept for each job, where the job's answer says, and without secrets."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import stat
from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from local.airbyte import job_logs
from local.airbyte.job_logs import JobLog, JobLogs, Masks
from local.airbyte.settings import Flavour, Settings
from local.airbyte.specification import MASK
from tests import leaks
from tests.integration.local.airbyte_stage import TEXT, scripted, serving, stream

SECRET = leaks.canary("a connector's token")
KEY = "-----BEGIN KEY-----\nabcdefgh/+ijklmnop==\n-----END KEY-----"


def settings_of(folder: Path, url: str, script: str, flavour: Flavour) -> Settings:
    """A plane whose connector is a script."""
    return Settings(
        state_dir=folder / "state",
        job_logs_dir=folder / "jobs",
        connectors_dir=scripted(folder / "connectors", script),
        warehouse_url=SecretStr(url),
        flavour=flavour,
    )


NOISY = """
    token = config["token"]
    say(type="LOG", log={"level": "WARN", "message": "trying " + token, "stack_trace": "at line 1"})
    print("a print with", token, flush=True)
    sys.stderr.write("an error line with " + token + "\\n"); sys.stderr.flush()
    if verb == "check":
        say(type="CONNECTION_STATUS", connectionStatus={"status": "FAILED",
            "message": "invalid_grant: expired access/refresh token"})
        sys.exit(0)
    if verb == "discover":
        fail("no such org", internal_message="Traceback: " + token)
    record("s", {"id": "a row of data"})
    state("s", {"cursor": "a state"})
    fail("the API answered 500")
"""


@pytest.mark.parametrize("flavour", list(Flavour))
async def test_each_job_names_its_log(tmp_path: Path, warehouse_url: str, flavour: Flavour) -> None:
    """A check, a discovery and each attempt of a sync, as the played release has it."""
    settings = settings_of(tmp_path, warehouse_url, NOISY, flavour)
    async with serving(settings) as api:
        source = await api.source({"token": SECRET})
        by_id = {"sourceId": source["sourceId"]}
        checked = await api.ask("sources/check_connection", **by_id)
        discovered = await api.ask("sources/discover_schema", **by_id)
        connection = await api.connection(source, [stream("s", {"id": TEXT})])
        job = await api.synced(connection)
        without = await api.ask("jobs/get_without_logs", id=job["job"]["id"])

    (attempt,) = job["attempts"]
    logs_by_job = {
        checked["jobInfo"]["id"]: checked["jobInfo"]["logs"],
        discovered["jobInfo"]["id"]: discovered["jobInfo"]["logs"],
        f"{job['job']['id']}": attempt["logs"],
    }
    wanted = {
        "check": ["expired access/refresh token", "FAILED"],
        "discover": ["no such org", "Traceback: *****"],
        "read": ["the API answered 500"],
    }
    for (name, logs), words in zip(logs_by_job.items(), wanted.values(), strict=True):
        file = tmp_path / "jobs" / f"{name}.log"
        assert logs["logLines"][0] == f"The whole log is in {file}."
        text = file.read_text()
        leaks.add("a job's log", text)
        assert logs["logLines"][1:] == text.splitlines()
        for word in [*words, "trying *", "at line 1", "a print with *", "an error line with *"]:
            assert word in text
        assert SECRET not in text
        assert "a row of data" not in text
        assert "a state" not in text
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "jobs").stat().st_mode) == 0o700
    assert without["attempts"][0]["logs"] == {"logLines": []}


async def test_command_output_names_the_log(tmp_path: Path, warehouse_url: str) -> None:
    """In its output, under the id of the job that it ran."""
    settings = settings_of(tmp_path, warehouse_url, NOISY, Flavour.COMMANDS)
    async with serving(settings) as api:
        source = await api.source({"token": SECRET})
        for kind in ("check", "discover"):
            await api.ask(f"commands/run/{kind}", id=f"../{kind}", actor_id=source["sourceId"])
            await api.plane._commands[f"../{kind}"]
            answer = await api.ask(f"commands/output/{kind}", id=f"../{kind}")
            first, *lines = answer["logs"]["logLines"]
            assert first.startswith(f"The whole log is in {tmp_path / 'jobs'}/")
            assert ".." not in first
            assert f"trying {MASK}" in "\n".join(lines)


async def test_renewed_secret_is_masked(tmp_path: Path, warehouse_url: str) -> None:
    """From the moment that the connector reports it."""
    renewed = leaks.canary("a renewed token")
    script = f"""
        say(type="CONTROL", control={{"type": "CONNECTOR_CONFIG", "emitted_at": 1e12,
            "connectorConfig": {{"config": {{"token": "{renewed}"}}}}}})
        say(type="LOG", log={{"level": "INFO", "message": "{renewed} and " + config["token"]}})
        say(type="CONNECTION_STATUS", connectionStatus={{"status": "SUCCEEDED"}})
    """
    settings = settings_of(tmp_path, warehouse_url, script, Flavour.COMMANDS)
    async with serving(settings) as api:
        source = await api.source({"token": SECRET})
        answer = await api.ask("sources/check_connection", sourceId=source["sourceId"])
    lines = answer["jobInfo"]["logs"]["logLines"]
    assert f"{MASK} and {MASK}" in "\n".join(lines)


SALESFORCE_TOKEN = "5Aep861.Zx+/q=&<end==\\of'it"
ENCODED = [
    re.sub(r"%..", lambda found: found[0].lower(), quote(SALESFORCE_TOKEN, safe="")),
    quote(quote(SALESFORCE_TOKEN, safe=""), safe=""),
    json.dumps(json.dumps(SALESFORCE_TOKEN)),
    json.dumps(SALESFORCE_TOKEN).replace("/", "\\/"),
    r"5Aep861.Zx+/q\u003d\u0026\u003cend\u003d\u003d\\of\u0027it",
    html.escape(SALESFORCE_TOKEN),
    SALESFORCE_TOKEN.encode().hex(),
    f"{SALESFORCE_TOKEN[:9]}\n    {SALESFORCE_TOKEN[9:]}",
    *(base64.b64encode(f"{'i' * n}{SALESFORCE_TOKEN}x".encode()).decode() for n in range(3)),
    base64.urlsafe_b64encode(SALESFORCE_TOKEN.encode()).decode(),
]


@pytest.mark.parametrize("written", ENCODED)
def test_encoded_secrets_are_masked(written: str) -> None:
    """Encoded twice, with other escapes, as bytes, or wrapped; of Base64 the edges stay."""
    masks = Masks([SALESFORCE_TOKEN])
    left = masks.clean(f"it said {written} here").replace(MASK, "")
    assert len(left) <= len("it said  here") + 8
    assert masks.clean("it said nothing") == "it said nothing"


@pytest.mark.parametrize(
    "written",
    [
        "{0}",
        "x{0}x{0}",
        "grant={1}&x=1",
        '"secret": {2}',
        "Authorization: Bearer 00Dxx0000001gPL!AR8AQJXg5oj8jXSgxJfA0lBog",
        "Authorization: Basic {3}",
        "access_token=abc123/def",
        '{{"refresh_token": "5Aep861", "client_secret":"3MVG9"}}',
        "'password': 'hunter2'",
        "grant_type=refresh_token&client_id=3MVG9lKc&client_secret=x",
        "API-Key: 12345",
        "https://ada:hunter2@example.com/x",
        "SID 00D5f0000000001!AQEAQJXg5oj8jXSgxJfA0lBog.x",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.SflKxwRJSMeKKF2QT4fw",
    ],
)
def test_secrets_are_masked_in_every_form(written: str) -> None:
    """As it is, escaped for a URL or JSON, in headers, and secrets renewed while it ran."""
    secret = 'sec/ret "x" ä+1'
    forms = (
        secret,
        quote(secret, safe=""),
        json.dumps(secret),
        base64.b64encode(secret.encode()).decode(),
    )
    clean = Masks([secret]).clean(written.format(*forms))
    for part in (
        *forms,
        "AR8AQ",
        "abc123",
        "5Aep861",
        "3MVG9",
        "hunter2",
        "12345",
        "AQEAQ",
        "eyJz",
    ):
        assert part not in clean
    assert MASK in clean


@pytest.mark.parametrize(
    "text",
    [
        "invalid_grant: expired access/refresh token",
        "HTTP Status Code: 403. Error: REQUEST_LIMIT_EXCEEDED",
        "errorCode: INVALID_FIELD, fields: [Region__c]",
        "Read 200 records from Account stream",
        "https://login.salesforce.com/services/oauth2/token",
    ],
)
def test_useful_text_is_not_masked(text: str) -> None:
    """Reasons, statuses, names and addresses."""
    assert Masks(["the-secret"]).clean(text) == text


def test_multi_line_key_is_masked_line_by_line(tmp_path: Path) -> None:
    """Programs print it as it is, indented, or in pieces of standard error."""
    with JobLog(tmp_path / "1.log", Masks([KEY])) as log:
        log.errors(b"key:\n" + KEY.replace("\n", "\n   ").encode() + b"\n")
        log.errors(KEY[:30].encode())
        log.errors(KEY[30:].encode())
    assert "abcdefgh" not in (tmp_path / "1.log").read_text()


@pytest.mark.parametrize("shift", range(-70, 10, 3))
def test_secret_at_the_cut_of_a_long_line_is_masked(tmp_path: Path, shift: int) -> None:
    """Wherever a line is cut, no part of a secret is before the cut."""
    secret = "S3CRET" * 10
    line = b"x" * (job_logs.LONGEST_LINE + shift) + secret.encode() + b"y" * 100_000
    line = (secret * 20).encode() + line
    for name in ("output", "errors"):
        path = tmp_path / f"{name}.log"
        with JobLog(path, Masks([secret])) as log:
            if name == "output":
                log.output(line)
            else:
                log.errors(line + b"\nnext\n")
        assert "S3C" not in path.read_text()
        assert len(path.read_text()) < 2 * job_logs.LONGEST_LINE
    assert "next" in path.read_text()


def test_log_is_bounded_and_keeps_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most two files of a bounded size; the answer has the last lines."""
    monkeypatch.setattr(job_logs, "MOST_BYTES", 10_000)
    logs = JobLogs(tmp_path)
    with logs.open("1", ()) as log:
        for number in range(3000):
            log.write("source", f"line {number}")
    sizes = [file.stat().st_size for file in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) < 11_000
    lines = logs.lines("1")
    assert len(lines) <= job_logs.SHOWN_LINES + 1
    assert lines[-1].endswith("line 2999")


def test_only_the_newest_logs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_logs, "MOST_FILES", 3)
    logs = JobLogs(tmp_path)
    for number in range(6):
        with logs.open(f"{number}", ()) as log:
            log.write("source", "said")
        _age(tmp_path, by_s=10)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["3.log", "4.log", "5.log"]
    assert logs.lines("0") == []


def _age(folder: Path, *, by_s: int) -> None:
    for file in folder.iterdir():
        when = file.stat().st_mtime - by_s
        os.utime(file, (when, when))


def test_unwritable_log_does_not_stop_the_job(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with JobLog(tmp_path / "file" / "1.log", Masks()) as log:
        log.write("source", "said")
        log.errors(b"said\n")
