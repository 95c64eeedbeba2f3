"""``ENGINE = "tools.conformance_engine.sqlite3"``."""
