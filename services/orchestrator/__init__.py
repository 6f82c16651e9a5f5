"""orchestrator: onboards connections, triggers syncs, answers what is and what was."""
