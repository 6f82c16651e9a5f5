"""HTTP code shared by all services: the app, authentication, request bodies, problems, health."""
