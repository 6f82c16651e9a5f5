"""Checks of the Helm chart without a cluster, on what Helm itself renders: `make test-chart`."""
