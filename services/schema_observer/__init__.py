"""schema_observer: observes sources and records drifts; it never applies a change."""
