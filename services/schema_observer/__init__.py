"""schema_observer: looks at sources, and records what differs. It applies nothing."""
