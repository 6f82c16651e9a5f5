"""AAM's decisions as pure functions, without I/O."""
