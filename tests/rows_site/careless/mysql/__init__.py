"""``ENGINE = "tests.rows_site.careless.mysql"``."""
