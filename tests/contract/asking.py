"""Runs schemathesis against one running service, based on its OpenAPI document.

A separate process, since Hypothesis seeds the process's random number generator. It reads an
`Asked` as JSON from standard input, and writes a `Result` as JSON to standard output.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import schemathesis
from schemathesis.config import (
    CoveragePhaseConfig,
    FuzzingPhaseConfig,
    GenerationConfig,
    PhasesConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
    StatefulPhaseConfig,
)
from schemathesis.engine import Status, events, from_schema
from schemathesis.generation.meta import TestPhase

from shared.auth.scopes import Scope
from shared.auth.service_tokens import Signer

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "ignored_auth",
]
_LONGEST_WALK = 8
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LONGEST_REQUEST_S = 20


@dataclass(frozen=True)
class Asked:
    """The options of a run: service, credentials, number of requests."""

    url: str
    examples: int
    """Number of random requests per operation, and of stateful sequences."""
    phases: list[str]
    """Of examples, coverage (the boundary values of the schemas), fuzzing and stateful."""
    seed: int
    authorization: str = ""
    """The Authorization header of every request; empty with `signing_key`."""
    signing_key: str = ""
    """Path of the orchestrator's private key, to sign a token per request to the auth_broker."""
    known: dict[str, str] = field(default_factory=dict)
    """Path parameters of existing objects, used in half of the random requests."""
    spared: list[str] = field(default_factory=list)
    """Ids that are never requested, such as the API key of the tests."""


@dataclass
class Result:
    """The outcome of all requests."""

    cases: dict[str, int] = field(default_factory=dict)
    """Number of requests by phase."""
    statuses: dict[int, int] = field(default_factory=dict)
    transitions: int = 0
    """Number of requests with parameters from an earlier response, by an OpenAPI link."""
    found: dict[str, str] = field(default_factory=dict)
    """Failures by check, operation and phase."""

    def handle(self, event: Any) -> None:
        """Record an event of the schemathesis engine."""
        if isinstance(event, events.FatalError):
            raise event.exception
        if isinstance(event, events.NonFatalError):
            self.found[event.label] = str(event.value)[-2000:]
        if isinstance(event, events.ScenarioFinished):
            self._scenario(event)

    def _scenario(self, event: events.ScenarioFinished) -> None:
        recorder, phase = event.recorder, event.phase.value
        self.cases[phase] = self.cases.get(phase, 0) + len(recorder.interactions)
        for one in recorder.interactions.values():
            status = 0 if one.response is None else one.response.status_code
            self.statuses[status] = self.statuses.get(status, 0) + 1
        self.transitions += sum(node.is_transition_applied for node in recorder.cases.values())
        for case_id, checks in recorder.checks.items():
            label = recorder.cases[case_id].value.operation.label
            for check in checks:
                if check.status is Status.FAILURE and check.failure_info is not None:
                    failure = check.failure_info.failure
                    self.found.setdefault(
                        f"{check.name}: {label} ({phase})",
                        f"{failure.title}\n{failure.message[:1000]}\n"
                        f"{check.failure_info.code_sample[:1000]}",
                    )


def ask(asked: Asked) -> Result:
    """Run the phases against a service."""
    schema = schemathesis.openapi.from_url(f"{asked.url}/openapi.json", config=_config(asked))

    calls = count()

    @schemathesis.hook
    def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
        named = case.path_parameters or {}
        walks = case.meta is not None and case.meta.phase.name is TestPhase.STATEFUL
        for name, value in named.items():
            if value in asked.spared:
                named[name] = "none"
            is_valid = _UUID.fullmatch(str(value)) is not None and case.method != "DELETE"
            if name in asked.known and is_valid and not walks and next(calls) % 2:
                named[name] = asked.known[name]

    if asked.signing_key:
        _sign(Signer("orchestrator", Path(asked.signing_key)))
    result = Result()
    for event in from_schema(schema).execute():
        result.handle(event)
    return result


def _sign(signer: Signer) -> None:
    """Sign a separate token for each request, for the credential that it requests."""

    @schemathesis.auth(refresh_interval=None)
    class Tokens:
        def get(self, case: Any, _context: Any) -> str:
            named = case.path_parameters or {}
            return signer.token(
                "auth_broker",
                Scope.CREDENTIALS_READ,
                credential_id=str(named.get("credential_id", "none")),
            )

        def set(self, case: Any, data: str, _context: Any) -> None:
            case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}


def _config(asked: Asked) -> SchemathesisConfig:
    def generation() -> GenerationConfig:
        return GenerationConfig(max_examples=asked.examples, deterministic=True, no_shrink=True)

    project = ProjectConfig(
        headers={"Authorization": asked.authorization} if asked.authorization else None,
        continue_on_failure=True,
        request_timeout=_LONGEST_REQUEST_S,
        generation=generation(),
        phases=PhasesConfig(
            coverage=CoveragePhaseConfig(enabled="coverage" in asked.phases),
            fuzzing=FuzzingPhaseConfig(generation=generation()),
            stateful=StatefulPhaseConfig(
                enabled="stateful" in asked.phases,
                generation=generation(),
                max_steps=_LONGEST_WALK,
            ),
        ),
    )
    project.checks.update(included_check_names=CHECKS)
    project.checks.negative_data_rejection.expected_statuses += ["413"]
    return SchemathesisConfig(seed=asked.seed, projects=ProjectsConfig(default=project))


if __name__ == "__main__":
    result = ask(msgspec.json.decode(sys.stdin.buffer.read(), type=Asked))
    sys.stdout.buffer.write(msgspec.json.encode(result))
