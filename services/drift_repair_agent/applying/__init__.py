"""Apply a catalog: the saga, its preflight checks, and pausing of a connection."""
