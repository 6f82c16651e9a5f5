"""`make scale`: a large fleet with two years of history, simulated on this machine."""
