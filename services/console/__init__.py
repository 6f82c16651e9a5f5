"""The web console: pages for people, made from the other services' answers to their own key."""
