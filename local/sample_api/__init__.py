"""A small HTTP API with two kinds of authentication, whose schema can be changed while it runs."""
