"""Queries, checks and answers in the forms of the API."""
