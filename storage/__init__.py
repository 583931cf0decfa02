"""The memory of Groupscope: segments on disk, DuckDB to read them, SQLAlchemy for what people add.

Imports nothing else of the project; the only room that imports duckdb or sqlalchemy.
"""
