"""What every service shares in HTTP: the app, its gate, request bodies, problems and health."""
