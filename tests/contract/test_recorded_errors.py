"""The local Airbyte refuses with the status and the members of real servers' errors."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from local.airbyte.errors import (
    Micronaut,
    Problem,
    Refusal,
    not_found,
    sync_is_running,
    too_large,
    uncaught,
)
from local.airbyte.releases import Release
from tests.contract.recordings import RECORDED, members, recordings

GATEWAYS = {
    "error-applications_token-4": "the public API's own server",
    "error-sources_get-1": "Google's API gateway",
}
REFUSALS: Mapping[str, tuple[str, Refusal]] = {
    "error-applications_token-1": ("1.8.0", Micronaut(400, "…", "/")),
    "error-applications_token-2": ("1.8.0", Micronaut(401, "…", "/")),
    "error-connections_create-1": ("0.60.1", too_large(1, "/")),
    "error-connections_create-2": ("0.57.0", Problem(400, "…", "…", "…")),
    "error-connections_sync-1": ("0.42.0", sync_is_running("…")),
    "error-connections_sync-2": ("1.8.0", sync_is_running("…")),
    "error-connections_sync-4": ("0.50.0", uncaught("…")),
    "error-connections_update-1": ("0.50.13", Problem(408, "…", "…", "…")),
    "error-source_definitions_list_for_workspace-1": ("1.4.1", uncaught("…")),
    "error-source_definitions_list_for_workspace-2": ("0.50.5", uncaught("…")),
    "error-sources_create-1": ("0.50.0", not_found("…", "…")),
    "error-sources_create-3": ("1.5.0", Problem(500, "…", "…", "…", message="…")),
    "error-sources_discover_schema-1": ("0.57.0", uncaught("…")),
    "error-workspaces_get-1": ("1.0.0", Micronaut(403, "…", "/")),
}
"""How the local Airbyte builds each recorded error body, by the file's name."""


# Recorded responses of other parties' servers may not be copied into the repository.
@pytest.mark.skipif(
    not RECORDED.is_dir(),
    reason="the recorded responses are not part of the repository: set AIRBYTE_RECORDED_DIR",
)
def test_error_bodies_are_as_recorded() -> None:
    """Status and members are those of a real server of that release."""
    played = set()
    for recording in recordings():
        if recording.status < 400 or recording.body is None or recording.name in GATEWAYS:
            continue
        version, refusal = REFUSALS[recording.name]
        own = set(members(refusal.body(Release(version))))
        assert refusal.status == recording.status, recording.name
        assert own == set(members(recording.body)), recording.name
        played.add(recording.name)
    assert played == REFUSALS.keys()
