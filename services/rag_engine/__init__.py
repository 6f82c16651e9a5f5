"""rag_engine: suggests renames of removed fields and streams, and learns from decisions."""
