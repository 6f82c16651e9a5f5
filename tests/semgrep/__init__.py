"""AAM's own rules for its code, and what shows that they find what they are for."""
