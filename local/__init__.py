"""Runs the whole mesh on one machine; nothing in services or shared imports it."""
