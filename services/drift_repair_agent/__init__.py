"""drift_repair_agent: applies a new catalog to a connection whose source changed."""
