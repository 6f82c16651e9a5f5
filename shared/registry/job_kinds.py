"""Kinds of Airbyte's jobs, by its own words: those that sync, and those that only clear data.

A clear or reset runs no source, so that its end says nothing about the source or its credential.
"""

from __future__ import annotations

from typing import Final

SYNCING: Final = frozenset({"sync", "refresh"})
"""Kinds of jobs that read from the source by the catalog."""


def is_sync(job: str) -> str:
    """SQL: whether a row of job_history, given by its alias, is of such a kind."""
    return f"{job}.kind IN ('sync', 'refresh')"
