"""orchestrator: onboards connections, starts syncs, and serves their state and history."""
