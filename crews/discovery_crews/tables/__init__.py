"""Columnar helpers over DuckDB: rows are computed on by SQL, never one by one in Python."""
