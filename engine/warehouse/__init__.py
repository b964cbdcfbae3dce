"""The DuckDB file that keeps the counts, and the only importer of duckdb and pyarrow."""
