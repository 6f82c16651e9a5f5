"""Airbyte's sync state of connections: saved before changes, described, and put back."""
