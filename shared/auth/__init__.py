"""Authentication and authorization: scopes, API keys, service tokens and OIDC tokens."""
