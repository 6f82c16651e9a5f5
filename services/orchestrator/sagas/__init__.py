"""Sagas, resumable and undone if Airbyte refuses a step: onboard, sync, archive."""
