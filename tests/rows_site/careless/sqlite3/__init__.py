"""``ENGINE = "tests.rows_site.careless.sqlite3"``."""
