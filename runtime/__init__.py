"""One runtime for processes, services and background work, in one tree of nurseries."""
