"""Whether a renamed field keeps its column in the destination, and who decides that."""
