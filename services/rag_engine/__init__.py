"""rag_engine: will say what a vanished field became; for now it only says that it runs."""
