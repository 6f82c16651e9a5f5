"""Airbyte's state of a connection, saved encrypted before a change."""
