"""auth_broker: turns a credential id into a connector's configuration; holds all secrets."""
