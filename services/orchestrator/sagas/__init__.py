"""Resumable steps in Airbyte, undone where it refuses: onboard, sync, archive."""
