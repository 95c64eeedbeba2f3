"""SQLite, by Python's own sqlite3."""
