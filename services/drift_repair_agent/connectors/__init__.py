"""Connectors: announce deadlines of breaking changes, and upgrade a source's connector."""
