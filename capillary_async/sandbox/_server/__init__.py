"""The HTTP server, its credentials and its journal."""
