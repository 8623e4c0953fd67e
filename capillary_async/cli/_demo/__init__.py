"""The demonstration against the sandbox."""
