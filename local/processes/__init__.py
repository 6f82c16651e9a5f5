"""Processes that end with who started them, and the servers among them."""
