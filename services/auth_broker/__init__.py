"""auth_broker: turns a credential id into a connector's configuration. Secrets live only here."""
