"""Applying a catalog: the saga, what must hold before it, and the pause of a connection."""
