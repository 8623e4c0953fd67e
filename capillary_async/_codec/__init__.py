"""Bytes to records and back; knows no HTTP."""
