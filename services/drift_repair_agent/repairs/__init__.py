"""Repairs: planning, decisions, execution, verification, and their state machine."""
