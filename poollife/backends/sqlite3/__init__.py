"""``ENGINE = "poollife.backends.sqlite3"``: SQLite through Python's sqlite3."""
