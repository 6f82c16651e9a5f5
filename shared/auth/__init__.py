"""Who may call what: scopes, API keys, the services' own tokens, and tokens of an OIDC issuer."""
