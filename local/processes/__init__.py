"""Processes that end with their parent, and the servers among them."""
