"""Schemas as real connectors published them, version after version."""
