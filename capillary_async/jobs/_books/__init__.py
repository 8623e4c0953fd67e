"""The other side of a reconciliation, as typed rows in DuckDB."""
