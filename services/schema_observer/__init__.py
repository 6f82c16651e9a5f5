"""schema_observer: will notice that a source changed; for now it only says that it runs."""
