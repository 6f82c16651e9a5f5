"""No secret is in the tree or in its history, by detect-secrets and the kinds of secret_kinds.py.

Entropy and keywords are not looked at: catalogs' hashes and the canaries of the tests are both.
"""

from __future__ import annotations

import base64
import secrets
import string
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from detect_secrets.core.scan import scan_file
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.settings import transient_settings

from shared.auth.api_keys import new_key
from tests.security import secret_kinds
from tests.security.pins import LOCKED

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    kind.__name__: str(kind.secret_type)
    for kind in RegexBasedDetector.__subclasses__()
    if kind.__module__ == secret_kinds.__name__
}
THEIRS = (
    "AWSKeyDetector",
    "AzureStorageKeyDetector",
    "GitHubTokenDetector",
    "GitLabTokenDetector",
    "JwtTokenDetector",
    "NpmDetector",
    "PrivateKeyDetector",
    "PypiTokenDetector",
    "SlackDetector",
    "StripeDetector",
)
EXAMPLES = {
    # The example of the docs page, which signs nothing; base64 of exactly that.
    "whsec_" + base64.b64encode(b"an example, which signs nothing").decode(),
    # What the test of job logs has masked: two of a token's three parts, which sign nothing.
    ".".join(
        [
            base64.urlsafe_b64encode(b'{"alg":"HS256"}').decode().rstrip("="),
            base64.urlsafe_b64encode(b'{"sub":"12345"}').decode().rstrip("="),
            "",
        ]
    ),
}


@pytest.fixture(scope="module", autouse=True)
def kinds() -> Iterator[None]:
    """Which secrets are looked for; nothing that is found is tried out anywhere."""
    where = Path(secret_kinds.__file__).as_uri()
    ours = [{"name": name, "path": where} for name in KINDS]
    theirs = [{"name": name} for name in THEIRS]
    with transient_settings({"plugins_used": [*ours, *theirs], "filters_used": []}):
        yield


def found(path: Path) -> list[str]:
    """What a file holds, by kind and line; never the secret."""
    return [
        f"{path.name}:{one.line_number}: {one.type}"
        for one in scan_file(str(path))
        if one.secret_value not in EXAMPLES
    ]


def git(*arguments: str) -> str:
    """What git says of this checkout."""
    run = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, timeout=60)
    return run.stdout.decode(errors="replace")


def added_lines() -> Iterable[str]:
    """Every line that a commit of this checkout ever added, each once."""
    log = git("log", "-p", "-m", "-U0", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD")
    lines = (line[1:] for line in log.splitlines() if line.startswith("+"))
    return dict.fromkeys(line for line in lines if "--hash=sha256:" not in line)


def test_tree_has_no_secret() -> None:
    """Every file that git tracks, or would; each line of the pins is a version and its hashes."""
    files = git("ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    paths = [ROOT / name for name in files if name and name not in LOCKED]

    assert len(paths) > 300
    assert [line for path in paths if path.is_file() for line in found(path)] == []


def test_tree_has_no_symbolic_link() -> None:
    """One that points outside the checkout would have made a machine's paths public."""
    files = git("ls-files", "--stage").splitlines()

    assert len(files) > 300
    assert [line for line in files if line.startswith("120000")] == []


@pytest.mark.deep
def test_history_has_no_secret(tmp_path: Path) -> None:
    """What was pushed once is public for ever."""
    lines = [*added_lines()]
    history = tmp_path / "history"
    history.write_text("\n".join(lines))

    assert any("make up" in line for line in lines)
    assert [line.partition(": ")[2] for line in found(history)] == []


def drawn(length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    """Random letters: what is planted is in no file of the repository."""
    return "".join(secrets.choice(alphabet) for _ in range(length))


def pem() -> str:
    """A private key as `make up` writes it."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


PLANTED: dict[str, Callable[[], str]] = {
    "Salesforce refresh token": lambda: f"5Aep861{drawn(80)}",
    "Salesforce consumer key": lambda: f"3MVG9{drawn(60)}.{drawn(19)}",
    "Salesforce session": lambda: f"00D{drawn(15)}!{drawn(60)}.{drawn(35)}",
    "AAM key": lambda: new_key("production").key,
    "Webhook secret": lambda: f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}",
    "Vault token": lambda: f"hvs.{drawn(90)}",
    "Supabase token": lambda: f"sbp_{secrets.token_hex(20)}",
    "Private Key": pem,
    "AWS Access Key": lambda: f"AKIA{drawn(16, string.ascii_uppercase + string.digits)}",
    "GitHub Token": lambda: f"ghp_{drawn(36)}",
    "JSON Web Token": lambda: ".".join(
        base64.urlsafe_b64encode(part).decode().rstrip("=")
        for part in (b'{"alg":"EdDSA","typ":"at+jwt"}', b'{"sub":"orchestrator"}', b"s" * 64)
    ),
}


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize(
    "line", ["{}", "export KEY={}", '{{"refresh_token": "{}"}}', "-H 'Authorization: Bearer {}'"]
)
def test_each_kind_of_secret_is_found(tmp_path: Path, kind: str, line: str) -> None:
    planted = tmp_path / "notes.md"
    planted.write_text(f"# Notes\n{line.format(PLANTED[kind]())}\n")

    assert kind in {finding.partition(": ")[2] for finding in found(planted)}


def test_every_own_kind_has_an_example() -> None:
    """A kind without one might find nothing."""
    assert set(KINDS.values()) <= PLANTED.keys()


@pytest.mark.parametrize("example", ["3MVG9.example", "5Aep861.example", "aam_demo_…", *EXAMPLES])
def test_examples_are_not_reported(tmp_path: Path, example: str) -> None:
    """What a page may show."""
    page = tmp_path / "README.md"
    page.write_text(f"CREDENTIAL={example}\n")

    assert found(page) == []
