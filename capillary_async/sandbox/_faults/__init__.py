"""Faults of answers and of lists, and when they occur."""
