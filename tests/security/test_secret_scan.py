"""No secret is in the tree or in its history, by detect-secrets and the plugins of secret_kinds.py.

Entropy and keyword detectors are off: catalog hashes and test canaries would be false positives.
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
    # The example of the documentation, which is no real key.
    "whsec_" + base64.b64encode(b"an example, which signs nothing").decode(),
    # The token that the test of job logs masks; it has no signature.
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
    """Enable the detectors, without verification of found secrets over the network."""
    where = Path(secret_kinds.__file__).as_uri()
    ours = [{"name": name, "path": where} for name in KINDS]
    theirs = [{"name": name} for name in THEIRS]
    with transient_settings({"plugins_used": [*ours, *theirs], "filters_used": []}):
        yield


def found(path: Path) -> list[str]:
    """Return the secrets found in a file, by kind and line, without the secret itself."""
    return [
        f"{path.name}:{one.line_number}: {one.type}"
        for one in scan_file(str(path))
        if one.secret_value not in EXAMPLES
    ]


def git(*arguments: str) -> str:
    """Run git in this checkout and return its output."""
    run = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, timeout=60)
    return run.stdout.decode(errors="replace")


def added_lines() -> Iterable[str]:
    """Return every line that any commit of this checkout has added, without duplicates."""
    log = git("log", "-p", "-m", "-U0", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD")
    lines = (line[1:] for line in log.splitlines() if line.startswith("+"))
    return dict.fromkeys(line for line in lines if "--hash=sha256:" not in line)


@pytest.mark.deep  # `make check` runs it
def test_tree_has_no_secret() -> None:
    """Every tracked or untracked file, except the locked requirements, which contain hashes."""
    files = git("ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    paths = [ROOT / name for name in files if name and name not in LOCKED]

    assert len(paths) > 300
    assert [line for path in paths if path.is_file() for line in found(path)] == []


def test_tree_has_no_symbolic_link() -> None:
    """A link to a path outside the checkout would publish that path."""
    files = git("ls-files", "--stage").splitlines()

    assert len(files) > 300
    assert [line for line in files if line.startswith("120000")] == []


@pytest.mark.deep
def test_history_has_no_secret(tmp_path: Path) -> None:
    """A pushed secret stays public, even if a later commit removes it."""
    lines = [*added_lines()]
    history = tmp_path / "history"
    history.write_text("\n".join(lines))

    assert any("make up" in line for line in lines)
    assert [line.partition(": ")[2] for line in found(history)] == []


def drawn(length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    """Return random characters, so that no planted secret is in the repository."""
    return "".join(secrets.choice(alphabet) for _ in range(length))


def pem() -> str:
    """Return a private key in the format that `make up` writes."""
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
    """Otherwise a detector that never matches would go unnoticed."""
    assert set(KINDS.values()) <= PLANTED.keys()


@pytest.mark.parametrize("example", ["3MVG9.example", "5Aep861.example", "aam_demo_…", *EXAMPLES])
def test_examples_are_not_reported(tmp_path: Path, example: str) -> None:
    """Placeholders in the documentation are allowed."""
    page = tmp_path / "README.md"
    page.write_text(f"CREDENTIAL={example}\n")

    assert found(page) == []
