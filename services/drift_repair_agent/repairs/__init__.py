"""Repairs: planned, decided, carried out, verified, and their one state machine."""
