"""drift_repair_agent: plans, applies, verifies and rolls back repairs, and notifies webhooks."""
