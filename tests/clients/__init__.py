"""Clients of Airbyte by other authors, run against the local Airbyte: `make clients`."""
