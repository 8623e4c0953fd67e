"""The customers, their points and their events."""
