"""``ENGINE = "poollife.backends.sqlite3"``."""
