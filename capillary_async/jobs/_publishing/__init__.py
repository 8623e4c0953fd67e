"""Sending a finished export to an object store or a Delta table."""
