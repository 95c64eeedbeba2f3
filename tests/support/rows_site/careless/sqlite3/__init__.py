"""``ENGINE = "tests.support.rows_site.careless.sqlite3"``."""
